"use strict";
/* Points for the lab's line: data sets made from a seed, and points that the reader places. */
globalThis.LatentData = (() => {
  const TRAIN = 400, HELD_OUT = 200;

  /** One point of each data set, from uniform numbers u and v and two normal ones. */
  const MAKERS = {
    moons: (u, v, [a, b]) => {
      const angle = Math.PI * u, side = v < 0.5 ? 1 : -1;
      return [side * (1.2 * Math.cos(angle) - 0.6) + 0.1 * a, side * (1.2 * Math.sin(angle) - 0.3) + 0.1 * b];
    },
    ring: (u, _, [a, b]) => [1.5 * Math.cos(2 * Math.PI * u) + 0.1 * a, 1.5 * Math.sin(2 * Math.PI * u) + 0.1 * b],
    bent: (u, _, [a, b]) => [4 * u - 2 + 0.1 * a, 0.6 * (4 * u - 2) ** 2 - 1 + 0.1 * b],
    mixture: (u, _, [a, b]) => {
      const angle = 2 * Math.PI * Math.floor(3 * u) / 3 + Math.PI / 2;
      return [1.5 * Math.cos(angle) + 0.3 * a, 1.5 * Math.sin(angle) + 0.3 * b];
    },
    line: (u, _, [a]) => [u < 0.6 ? -1.2 + 0.35 * a : 1 + 0.5 * a],
  };

  /** Return `{ dim, train, heldOut }`, rows of coordinates as Float32Array, for the settings. */
  function points(settings) {
    if (settings.data === "own") {
      const own = ownPoints(settings.points);
      return { dim: 2, train: own, heldOut: own };
    }
    const random = new LatentLearning.Random(settings.seed, "data"), pair = new Float64Array(2);
    const point = () => MAKERS[settings.data](random.uniform(), random.uniform(), random.normals(pair));
    const rows = (count) => Float32Array.from(Array.from({ length: count }, point).flat());
    const dim = settings.data === "line" ? 1 : 2;
    return { dim, train: rows(TRAIN), heldOut: rows(HELD_OUT) };
  }

  /** Read own points as they stand in the address; refuse what is none. */
  function ownPoints(text) {
    const { MOST_POINTS, REACH, isPoint, pointsOf } = LatentSettings, pairs = pointsOf(text);
    if (!pairs.length || pairs.length > MOST_POINTS || !pairs.every(isPoint))
      throw new RangeError(`points must be 1 to ${MOST_POINTS} pairs like 0.5,-1;2,1 with coordinates from -${REACH} to ${REACH}. `
        + `Received: points=${text.length > 40 ? `${text.slice(0, 40)}…` : text}`);
    return Float32Array.from(pairs.flat());
  }

  return { ownPoints, points };
})();
