"use strict";
/* The lab's two views: what a snapshot of the training looks like, and what it says in words. */
globalThis.LatentViews = (() => {
  const { Chart, ends, images, readable, rgb, shade } = LatentCharts;
  const { Plane } = LatentPlane;
  const FAMILY = "#D55E00";  // of Okabe and Ito's colours, which colour-blind readers can tell apart
  const { REACH } = LatentSettings;
  const ACTIVE = 0.01, THIN = 4, FEW = 200;
  const STEPS = "steps", SMALL = { left: 50, right: 8, top: 20, bottom: 36 };

  /** One curve for each of `series` over the steps of the history, with a legend. */
  function overSteps(canvas, theme, history, { y, series, shaded = [], least }) {
    const values = series.flatMap(({ of }) => history.map(of));
    const [low, high] = ends(values, { least, trim: 0.04 });
    const last = Math.max(history.at(-1)?.step ?? 0, 10);
    const chart = new Chart(canvas, theme, {
      x: { name: STEPS, low: 0, high: last }, y: { name: y, low, high }, margin: SMALL });
    chart.axes();
    const steps = history.map(({ step }) => step);
    chart.within(() => {
      for (const { from, to, color, alpha } of shaded)
        chart.between(steps, history.map(from), history.map(to), color, alpha);
      for (const { of, color, dash, width } of series)
        chart.curve(history.map((entry) => [entry.step, of(entry)]), color, { dash, width });
    });
    chart.legend([...series, ...shaded.map(({ name, color, alpha }) => ({ name, color, block: alpha }))]);
  }

  // Digits

  function drawCurves(part, { theme, history }) {
    for (const name of ["negativeElbo", "reconstruction", "kl"]) overSteps(part(name), theme, history, {
      y: "nats per image", least: 0.5, series: [
        { name: "training", of: ({ train }) => train[name], color: theme.ink, dash: "dashed", width: 1.5 },
        { name: "held out", of: ({ heldOut }) => heldOut[name], color: theme.accent }] });
  }

  /** Where the held-out digits lie in two dimensions; with one dimension, a row for each digit. */
  function placesOf({ means }, labels, latent, [a, b]) {
    return Float32Array.from({ length: 2 * labels.length }, (_, i) => {
      const row = i >> 1;
      if (i % 2 === 0) return means[row * latent + (latent === 1 ? 0 : a - 1)];
      return latent === 1 ? 0.6 * (labels[row] - 4.5) : means[row * latent + b - 1];
    });
  }

  const grounds = new WeakMap();

  function drawPlane(part, { theme, snapshot, settings, digits, colors }) {
    const canvas = part("plane"), dimensions = settings.dimensions.split(",").map(Number);
    const plane = new Plane(canvas, placesOf(snapshot, digits.heldOutLabels, settings.latent, dimensions),
                            digits.heldOutLabels, colors);
    plane.ground = grounds.get(canvas);  // one for all snapshots
    plane.prepare(theme);
    grounds.set(canvas, plane.ground);
    const context = canvas.getContext("2d");
    context.drawImage(plane.ground, 0, 0);
    context.scale(plane.ratio, plane.ratio);
    context.font = "12px system-ui, sans-serif";
    context.fillStyle = rgb(theme.ink);
    context.textBaseline = "alphabetic";
    const [across, up] = settings.latent === 1 ? ["z1", "label"] : dimensions.map((each) => `z${each}`);
    const limits = [-plane.reach, plane.reach].map((value) => readable(value)), reach = limits.join(" to ");
    context.textAlign = "right";
    context.fillText(`${across}, ${reach} →`, plane.side - 6, plane.side - 6);
    context.save();
    context.translate(14, 6);
    context.rotate(-Math.PI / 2);
    context.fillText(settings.latent === 1 ? "label →" : `${up}, ${reach} →`, 0, 0);
    context.restore();
  }

  const pixels = (levels, white = 255) => Float32Array.from(levels, (level) => level / white);

  function drawPictures(part, { theme, snapshot: { pictures }, digits }) {
    const { side, plane, samples, reconstructions } = pictures;
    const across = Math.round(Math.sqrt(plane.length / (side * side)));
    const count = reconstructions.length / (side * side);
    images(part("decoded"), pixels(plane), side, across, theme);
    images(part("samples"), pixels(samples), side, 8, theme, 1);
    const originals = digits.levels.subarray(digits.train * side * side, (digits.train + count) * side * side);
    images(part("reconstructions"), [...pixels(originals, digits.white), ...pixels(reconstructions)], side, count, theme, 1);
  }

  function drawUnits(part, { theme, snapshot: { klPerDimension, activity } }) {
    const kl = Array.from(klPerDimension), active = activity.filter((value) => value > ACTIVE).length;
    const chart = new Chart(part("units"), theme, { margin: SMALL,
      x: { name: "latent dimension", whole: true, low: 0.4, high: kl.length + 0.6 },
      y: { name: "KL, nats", low: 0, high: Math.max(1, 1.1 * Math.max(...kl.filter(Number.isFinite))) } });
    chart.axes();
    chart.bars(kl, (i) => (activity[i] > ACTIVE ? rgb(theme.accent) : rgb(theme.ink, 0.35)));
    chart.legend([{ name: "active", color: theme.accent, block: 1 }, { name: "inactive", color: theme.ink, block: 0.35 }]);
    part("active").textContent = `${active} of ${kl.length} active`;
  }

  /** In how many of a hundred the nearest other held-out digit has the same label. */
  function sameNeighbour({ means }, labels, latent) {
    let same = 0;
    labels.forEach((label, row) => {
      let nearest = Infinity, found = -1;
      for (let other = 0; other < labels.length; other++) {
        if (other === row) continue;
        let distance = 0;
        for (let d = 0; d < latent; d++) distance += (means[row * latent + d] - means[other * latent + d]) ** 2;
        if (distance < nearest) [nearest, found] = [distance, other];
      }
      if (labels[found] === label) same++;
    });
    return Math.round(100 * same / labels.length);
  }

  function digitsWords({ snapshot, settings, digits }) {
    const { heldOut, train, klPerDimension, activity } = snapshot;
    const active = activity.filter((value) => value > ACTIVE).length;
    return `Held-out digits: reconstruction ${readable(heldOut.reconstruction)}, KL ${readable(heldOut.kl)}, `
      + `−ELBO ${readable(heldOut.negativeElbo)} nats per image; training digits: −ELBO ${readable(train.negativeElbo)}. `
      + `${active} of ${klPerDimension.length} latent dimensions ${klPerDimension.length === 1 ? "is" : "are"} active. `
      + `Of a hundred held-out digits, ${sameNeighbour(snapshot, digits.heldOutLabels, settings.latent)} lie nearest to one with the same label.`;
  }

  // One dimension

  const gridOf = (count) => Array.from({ length: count }, (_, i) => 8 * i / (count - 1) - 4);  // of z, as truth.js shows it
  const rowsOf = (flat, dim) => Array.from({ length: flat.length / dim }, (_, i) => Array.from(flat.subarray(i * dim, (i + 1) * dim)));

  /** The chart of the data: a plane, or, for x on a line, z across and x up. */
  function dataChart(canvas, theme, dim) {
    const axis = (name) => ({ name, low: -REACH, high: REACH });
    return new Chart(canvas, theme, dim === 1 ? { x: axis("latent z"), y: axis("x") }
      : { x: axis("x1"), y: axis("x2"), equal: true });
  }

  function drawCurve(part, { theme, snapshot, data, at }) {
    const { truth } = snapshot, chart = dataChart(part("curve"), theme, data.dim);
    const curve = rowsOf(truth.curve, data.dim), z = gridOf(curve.length);
    const shown = z.flatMap((each, i) => (i % THIN === 0 && Math.abs(each) <= REACH ? [i] : []));
    const points = shown.map((i) => (data.dim === 1 ? [z[i], curve[i][0]] : curve[i]));
    chart.axes();
    chart.within(() => {
      if (data.dim === 1) {
        const means = points.map(([, x]) => x), xs = points.map(([each]) => each);
        for (const k of [1, 2])
          chart.between(xs, means.map((m) => m - k * truth.sigma), means.map((m) => m + k * truth.sigma), theme.accent, 0.15);
      } else {
        const unit = (chart.inner.right - chart.inner.left) / (chart.x.high - chart.x.low);
        for (const k of [1, 2]) {
          chart.context.lineCap = "round";
          chart.curve(points, theme.accent, { width: Math.max(2 * k * truth.sigma * unit, 1), alpha: 0.15 });
        }
      }
      for (const [part, alpha] of [["train", 0.3], ["heldOut", 0.75]]) {
        const rows = rowsOf(data[part], data.dim);
        if (data.dim === 2) chart.dots(rows, rgb(theme.ink, alpha));
        else for (const [x] of rows) {
          chart.context.fillStyle = rgb(theme.ink, alpha);
          chart.context.fillRect(chart.inner.left, chart.place(0, x)[1] - 0.5, part === "train" ? 8 : 14, 1);
        }
      }
      chart.curve(points, theme.accent, { width: 2.5 });
      for (const mark of [-2, -1, 0, 1, 2]) {
        const point = points[shown.findIndex((i) => z[i] === mark)];
        chart.ring(point, theme.accent, 2);
        if (data.dim === 2 && mark % 2 === 0) {
          const [left, top] = chart.place(...point);
          chart.context.fillStyle = rgb(theme.ink);
          chart.write(`z = ${readable(mark, 0)}`, left + 8, top - 9, "left", true);
        }
      }
      if (data.dim === 2 && data.train.length < FEW) chart.dots(rowsOf(data.train, 2), rgb(theme.ink), 3);
      if (at && data.dim === 2) chart.ring(at, theme.ink);
      if (at && data.dim === 1) {
        chart.curve([[-REACH, at[0]], [REACH, at[0]]], theme.ink, { dash: "dashed", width: 1.5 });
      }
    });
  }

  const normal = (z, mean, sigma) => Math.exp(-(((z - mean) / sigma) ** 2) / 2) / (sigma * Math.sqrt(2 * Math.PI));

  function drawPosterior(part, { theme, snapshot: { look } }) {
    const posterior = look ? Array.from(look.posterior) : [], z = gridOf(posterior.length);
    const q = look ? z.map((each) => normal(each, look.mean, look.sigma)) : [];
    const highest = Math.max(0.5, ...posterior, ...(look ? [Math.min(Math.max(...q), 4 * Math.max(...posterior))] : []));
    const chart = new Chart(part("posterior"), theme, { margin: SMALL,
      x: { name: "latent z", low: -4, high: 4 }, y: { name: "density", low: 0, high: 1.08 * highest } });
    chart.axes();
    if (look) chart.within(() => {
      chart.between(z, z.map(() => 0), posterior, theme.ink, 0.12);
      chart.curve(z.map((each, i) => [each, posterior[i]]), theme.ink);
      chart.curve(z.map((each, i) => [each, q[i]]), theme.accent, { dash: "dashed" });
      if (look.best) chart.curve(z.map((each) => [each, normal(each, look.best.mean, look.best.sigma)]),
                                 shade(FAMILY, theme), { dash: "dotted" });
    });
    chart.legend([{ name: "exact p(z|x)", color: theme.ink }, { name: "q(z|x)", color: theme.accent, dash: "dashed" },
                  ...(look?.best ? [{ name: "best Gaussian", color: shade(FAMILY, theme), dash: "dotted" }] : [])]);
    const numbers = { at: look?.at.map((value) => readable(value, 2)).join(", "),
                      "at-likelihood": readable(look?.logLikelihood, 2), "at-elbo": readable(look?.elbo, 2),
                      "at-gap": readable(look && look.logLikelihood - look.elbo, 2) };
    for (const [name, text] of Object.entries(numbers)) part(name).textContent = text ?? "–";
  }

  function drawBound(part, { theme, history, settings }) {
    const split = settings.split === "yes", reached = ({ truth }) => truth.elbo + (truth.encoder ?? 0);
    const [likelihood, elbo] = [({ truth }) => truth.logLikelihood, ({ truth }) => truth.elbo];
    const shaded = split
      ? [{ name: "no Gaussian fits", from: reached, to: likelihood, color: shade(FAMILY, theme), alpha: 0.35 },
         { name: "the encoder misses", from: elbo, to: reached, color: theme.accent, alpha: 0.3 }]
      : [{ name: "gap", from: elbo, to: likelihood, color: theme.accent, alpha: 0.2 }];
    const entries = split ? history.filter(({ truth }) => truth.encoder !== undefined) : history;
    overSteps(part("bound"), theme, entries.length ? entries : history, { y: "nats per point", least: 0.2, shaded, series: [
      { name: "exact log p(x)", of: likelihood, color: theme.ink },
      { name: "ELBO", of: elbo, color: theme.accent, dash: "dashed" }] });
    const { truth } = history.at(-1);
    for (const [name, value] of Object.entries({ likelihood: truth.logLikelihood, gap: truth.gap, family: truth.family, encoder: truth.encoder }))
      part(name).textContent = readable(value, 3);
  }

  /** How many bumps a density has, those under a twentieth of the highest not counted. */
  function bumps(density) {
    const least = Math.max(...density) / 20;
    return density.filter((value, i) => value > least && value > (density[i - 1] ?? 0) && value >= (density[i + 1] ?? 0)).length;
  }

  function lineWords({ snapshot: { truth, look } }) {
    const split = truth.family === undefined ? "" : ` Of the gap, no Gaussian could close ${readable(truth.family, 3)}; the encoder misses ${readable(truth.encoder, 3)}.`;
    const means = `Held-out points: exact log p(x) ${readable(truth.logLikelihood, 3)}, ELBO ${readable(truth.elbo, 3)}, gap ${readable(truth.gap, 3)} nats.`;
    if (!look) return means + split;
    const count = bumps(Array.from(look.posterior));
    const here = ` At x = ${look.at.map((value) => readable(value, 2)).join(", ")} the exact posterior has ${count} ${count === 1 ? "bump" : "bumps"}; `
      + `q(z|x) has mean ${readable(look.mean, 2)} and σ ${readable(look.sigma, 2)}; the gap there is ${readable(look.logLikelihood - look.elbo, 2)} nats.`;
    return means + split + here;
  }

  function drawTerms(part, { snapshot, settings }) {
    const digits = settings.view === "line" ? 3 : 1;
    for (const half of ["train", "heldOut"]) for (const [name, value] of Object.entries(snapshot[half])) {
      const cell = part(`${half}-${name}`);
      if (cell) cell.textContent = readable(value, name === "loss" && Math.abs(value) < 10 ? Math.max(digits, 2) : digits);
    }
  }

  const VIEWS = {
    digits: { draw: [drawPlane, drawPictures, drawCurves, drawUnits, drawTerms], words: digitsWords },
    line: { draw: [drawCurve, drawPosterior, drawBound, drawTerms], words: lineWords },
  };

  /** What there is to draw in a view: functions, so that no single task takes long. */
  const pieces = (view) => VIEWS[view].draw;
  const words = (shown) => VIEWS[shown.settings.view].words(shown);

  return { dataChart, pieces, readable, words };
})();
