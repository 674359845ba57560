"use strict";
/* The whole state of a lab as it stands in the page's address: "lab=digits&beta=4", with only what
 * differs from the view's defaults.
 */
globalThis.LatentAddress = (() => {
  const VIEWS = ["line", "digits"];
  const SPEEDS = ["slow", "watch", "full"];
  const { MOST_POINTS, REACH, isPoint, pointsOf, pointsText } = LatentSettings;
  const MOST_STEPS = 100000;

  /** What only the page needs: how it is shown, not how it learns. */
  const SHOWN = {
    line: { speed: "watch", until: 0, at: "", split: "no" },
    digits: { speed: "watch", until: 0, dimensions: "1,2" },
  };
  const defaults = (view) => ({ ...LatentSettings.defaults(view), ...SHOWN[view] });

  /** For each setting that only the page knows: what it must be, a test, and the nearest valid one. */
  const OWN = {
    speed: { wanted: `one of ${SPEEDS.join(", ")}`, valid: (text) => SPEEDS.includes(text), nearest: () => "watch" },
    until: {
      wanted: `a whole number of steps up to ${MOST_STEPS}, 0 to go on`,
      valid: (text) => /^\d+$/.test(text) && text <= MOST_STEPS,
      nearest: (text) => Math.min(Math.max(Math.round(Number(text)) || 0, 0), MOST_STEPS),
      read: Number,
    },
    split: { wanted: "one of no, yes", valid: (text) => ["no", "yes"].includes(text), nearest: () => "no" },
    at: {
      wanted: `a place x,y within ±${REACH}`,
      valid: (text) => text.split(",").length <= 2 && text.split(",").every((part) => Math.abs(part) <= REACH),
      nearest: () => "",
    },
    points: {
      wanted: `up to ${MOST_POINTS} points x,y;x,y within ±${REACH}`,
      valid: (text) => pointsOf(text).every(isPoint) && pointsOf(text).length <= MOST_POINTS,
      nearest: (text) => pointsText(pointsOf(text).filter(isPoint).slice(0, MOST_POINTS)),
    },
    dimensions: {
      wanted: "two different latent dimensions, as in 1,2",
      valid: (text, { latent }) => {
        const [a, b, more] = text.split(",").map(Number);
        return more === undefined && a !== b && [a, b].every((each) => Number.isInteger(each) && each >= 1 && each <= Math.max(latent, 2));
      },
      nearest: () => "1,2",
    },
  };

  /** Return the nearest valid value for what stands in the address, and a complaint if it is another. */
  function accept(settings, name, text) {
    if (OWN[name]) {
      const { wanted, valid, nearest, read: of = String } = OWN[name];
      if (valid(text, settings)) return { value: of(text) };
      const value = nearest(text);
      return { value, complaint: `${name} must be ${wanted}. Received: ${name}=${text}. Now it is ${value === "" ? "left out" : value}` };
    }
    const { view } = settings, number = text.trim() === "" ? NaN : Number(text);
    const asked = typeof settings[name] === "number" && !Number.isNaN(number) ? number : text;
    try {
      LatentSettings.check({ view, [name]: asked });
      return { value: asked };
    } catch (error) {
      const value = LatentSettings.nearest(name, asked, view);
      return { value, complaint: `${error.message}. Now it is ${value}` };
    }
  }

  /** Read what stands in the address: settings that are valid, and a complaint for each that was not. */
  function read(text, fallback) {
    const asked = new URLSearchParams(text), complaints = [];
    let view = asked.get("lab");
    if (!VIEWS.includes(view)) {
      if (view !== null) complaints.push(`lab must be one of ${VIEWS.join(", ")}. Received: lab=${view}. Now it is ${fallback}`);
      view = fallback;
    }
    const settings = defaults(view);
    const last = ([name]) => (name in OWN ? 1 : 0);  // what depends on the others
    for (const [name, value] of [...asked].sort((a, b) => last(a) - last(b))) {
      if (name === "lab") continue;
      if (!(name in settings) || name === "view") {
        complaints.push(`There is no setting ${name} in this view. Received: ${name}=${value}. It is left out`);
        continue;
      }
      const accepted = accept(settings, name, value);
      settings[name] = accepted.value;
      if (accepted.complaint) complaints.push(accepted.complaint);
    }
    return { settings, complaints };
  }

  function write(settings) {
    const { view } = settings, start = defaults(view);
    const changed = Object.keys(start).filter((name) => settings[name] !== start[name]);
    const plain = (value) => encodeURIComponent(value).replace(/%2C/g, ",").replace(/%3B/g, ";");
    return [`lab=${view}`, ...changed.map((name) => `${name}=${plain(settings[name])}`)].join("&");
  }

  return { accept, defaults, read, write };
})();
