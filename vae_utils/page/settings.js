"use strict";
/* The settings of the lab, as they stand in the page's address: defaults, limits, and what is refused. */
globalThis.LatentSettings = (() => {
  const LIMITS = { seed: [0, 2 ** 32 - 1], beta: [0, 50], rate: [1e-4, 0.1], batch: [1, 1000], hidden: [1, 512],
                   latent: [1, 32], warmup: [0, 100000], freeBits: [0, 10] };
  const INTEGERS = ["seed", "batch", "hidden", "latent", "warmup"];
  const LIVE = ["beta", "rate", "batch", "warmup", "freeBits", "broken"];  // may change while it runs
  const SICK = ["none", "sign", "mean", "variance", "unused", "noiseless"];
  const CHOICES = {
    view: ["line", "digits"],
    data: { line: ["moons", "ring", "bent", "mixture", "line", "own"], digits: ["8x8", "28x28"] },
    broken: { line: SICK, digits: [...SICK, "sigmoid", "scaled"] },  // these two are about pixels
  };
  const SHARED = { points: "", seed: 0, beta: 1, batch: 50, warmup: 0, freeBits: 0, broken: "none" };
  const DEFAULTS = {
    line: { view: "line", data: "moons", ...SHARED, rate: 0.003, hidden: 32, latent: 1 },
    digits: { view: "digits", data: "8x8", ...SHARED, rate: 0.002, hidden: 128, latent: 2 },
  };

  const REACH = 3, MOST_POINTS = 200;  // own points lie in [-REACH, REACH]², as all that the line view shows

  /** Read own points from "x,y;x,y": pairs of numbers, NaN where there is none; and write them. */
  const pointsOf = (text) => (text ? text.split(";").map((pair) => pair.split(",").map((part) => (part.trim() ? Number(part) : Number.NaN))) : []);
  const pointsText = (points) => points.map((point) => point.map((value) => Number(value.toFixed(2))).join()).join(";");
  const isPoint = (point) => point.length === 2 && point.every((value) => Math.abs(value) <= REACH);

  const limits = (name, view) => (name === "latent" && view === "line" ? [1, 1] : LIMITS[name]);
  const choices = (name, view) => (name === "view" ? CHOICES.view : CHOICES[name]?.[view]);

  /** What is wrong with a value, as a sentence; an empty text if nothing is. */
  function objection(name, value, view) {
    const received = ` Received: ${name}=${value}`, options = choices(name, view);
    if (options) return options.includes(value) ? "" : `${name} must be one of ${options.join(", ")}.${received}`;
    if (name === "points") return typeof value === "string" ? "" : `points must be text.${received}`;
    if (!(name in LIMITS)) return `There is no setting of this name.${received}`;
    const [low, high] = limits(name, view), whole = INTEGERS.includes(name);
    const fits = typeof value === "number" && value >= low && value <= high && (!whole || Number.isInteger(value));
    return fits ? "" : `${name} must be a ${whole ? "whole " : ""}number from ${low} to ${high}.${received}`;
  }

  /** Return all settings of a view, the given ones over its defaults; throw if one is refused. */
  function check(given) {
    const view = given.view ?? "line", problem = objection("view", view);
    if (problem) throw new RangeError(problem);
    const settings = { ...DEFAULTS[view], ...given };
    for (const [name, value] of Object.entries(settings)) {
      const sentence = objection(name, value, view);
      if (sentence) throw new RangeError(sentence);
    }
    return settings;
  }

  /** Return the valid value next to a given one: the nearest number, or the default. */
  function nearest(name, value, view) {
    if (!objection(name, value, view)) return value;
    const number = typeof value === "string" && !value.trim() ? Number.NaN : Number(value);
    if (!(name in LIMITS) || Number.isNaN(number)) return DEFAULTS[view]?.[name] ?? DEFAULTS.line[name];
    const [low, high] = limits(name, view), inside = Math.min(Math.max(number, low), high);
    return INTEGERS.includes(name) ? Math.round(inside) : inside;
  }

  return { CHOICES, INTEGERS, LIMITS, LIVE, MOST_POINTS, REACH, check, defaults: (view) => ({ ...DEFAULTS[view] }), isPoint, nearest, objection,
           pointsOf, pointsText };
})();
