"use strict";
/* The latent explorer: what is shown, and what happens at a touch.
 *
 * `LatentExplorer.start(name, payload)` brings the element with data-explorer="name" to life. Its
 * property `explorer.state` is a copy of what is shown, for tests: image, mean, logVar, sigma, kl,
 * z, logits, reconstruction, source of z, how many points the strokes have, and the milliseconds
 * that the last frame took.
 */
globalThis.LatentExplorer = (() => {
  const { gaussianKL, negativeLogLikelihood, network, normals, sigmoid, unpack } = LatentNetworks;
  const { SIZE, follow, onPaper, paint, rasterize, showDrawing } = LatentDrawing;
  const { Plane } = LatentPlane;
  const { themeOf, watch } = LatentPage;

  const CLOUD = 24, STRIDE = 5, BIG_STRIDE = 25, WORDS_WAIT = 400;  // strides in steps of a slider
  const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowDown: [0, -1], ArrowUp: [0, 1] };
  const number = (value, digits = 2) => value.toFixed(digits).replace("-", "−");

  async function explore(root, payload) {
    const [encode, decode, points, labels, images] = await Promise.all([
      network(payload.encoder), network(payload.decoder), unpack(payload.points, Float32Array),
      unpack(payload.labels, Uint8Array), unpack(payload.images, Uint8Array)]);
    const part = (name) => root.querySelector(`[data-part="${name}"]`);
    const testImage = (n) =>
      Float32Array.from(images.subarray(n * SIZE * SIZE, (n + 1) * SIZE * SIZE), (level) => level / 255);
    const plane = new Plane(part("plane"), points, labels, payload.colors);
    const state = { strokes: [], image: null, posterior: null, z: [0, 0], temperature: 1,
                    source: "prior", sampled: "prior",  // of z: now, and before a hand moved it
                    noise: Array.from({ length: CLOUD }, normals) };
    let waiting = false, speaking = 0, theme;

    // What is shown

    function update() {
      if (state.image && !state.posterior) {
        const [mean, logVar] = encode(state.image);
        const sigma = logVar.map((value) => Math.exp(value / 2));
        state.posterior = { mean, logVar, sigma, kl: gaussianKL(mean, logVar) };
      }
      const { mean, sigma } = (state.source !== "prior" && state.posterior) || { mean: [0, 0], sigma: [1, 1] };
      const sample = (noise) => noise.map((value, i) => mean[i] + state.temperature * sigma[i] * value);
      state.cloud = state.source === "hand" ? [] : state.noise.map(sample);
      if (state.source !== "hand") state.z = state.cloud[0];
      [state.logits] = decode(Float32Array.from(state.z));
      state.reconstruction = state.image && negativeLogLikelihood(state.image, state.logits, payload.pixelLogVar);
    }

    function draw() {
      plane.draw(state);
      paint(part("decoded"), payload.pixelLogVar === null ? state.logits.map(sigmoid) : state.logits, theme);
      state.z.forEach((value, i) => {
        const slider = part(`z${i + 1}`);
        slider.value = value;
        slider.setAttribute("aria-valuetext", number(value));
        part(`z${i + 1}-value`).textContent = number(value);
      });
      part("temperature-value").textContent = number(state.temperature);
      const kl = state.posterior?.kl, sampled = state.source === "posterior" && state.temperature === 1;
      part("reconstruction").textContent = state.image ? number(state.reconstruction, 1) : "–";
      part("kl").textContent = state.image ? number(kl, 1) : "–";
      part("total").textContent = state.image && sampled ? number(state.reconstruction + kl, 1) : "–";
      part("posterior").disabled = !state.image;
    }

    function frame() {
      waiting = false;
      const start = performance.now();
      if (state.strokes.length && !state.image) state.image = rasterize(state.strokes, payload.pen);
      update();
      if (state.paperChanged) showDrawing(part("paper"), part("seen"), state, payload.pen, theme);
      state.paperChanged = false;
      draw();
      state.milliseconds = performance.now() - start;
      clearTimeout(speaking);
      speaking = setTimeout(() => { part("words").textContent = words(); }, WORDS_WAIT);
    }

    function words() {
      const [z1, z2] = Array.from(state.z, (value) => number(value));
      const here = `The point z is at ${z1}, ${z2}: ${plane.neighbourhood(state.z)}.`;
      if (!state.image) return `Nothing is drawn. ${here}`;
      const { mean, sigma, kl } = state.posterior;
      const [m1, m2, s1, s2] = [...mean, ...sigma].map((value) => number(value));
      const nats = `Reconstruction ${number(state.reconstruction, 1)}, KL ${number(kl, 1)} nats.`;
      const why = state.source === "posterior" && state.temperature === 1 ? ""
        : " Their sum estimates −ELBO only if z is a sample of q(z|x) at temperature 1.";
      return `${state.what} is encoded at ${m1}, ${m2} with σ ${s1}, ${s2}. ${here} ${nats}${why}`;
    }

    // What happens

    function change(news) {
      Object.assign(state, news);
      if (state.source !== "hand") state.sampled = state.source;
      if ("image" in news) Object.assign(state, { posterior: null, paperChanged: true });
      if (!waiting) requestAnimationFrame(frame);
      waiting = true;
    }

    const move = (z) => change({ z: plane.inside(z), source: "hand" });

    follow(part("paper"), (...place) => {
      state.strokes.push([onPaper(...place)]);
      change({ image: null, source: "posterior", what: "Your drawing" });
    }, (...place) => {
      const stroke = state.strokes.at(-1), [x, y] = onPaper(...place);
      if (!stroke || Math.hypot(x - stroke.at(-1)[0], y - stroke.at(-1)[1]) < 1) return;
      stroke.push([x, y]);
      change({ image: null });
    });
    const drag = (x, y) => move(plane.point(x, y));
    follow(part("plane"), drag, drag);

    root.addEventListener("keydown", (event) => {  // or a notebook would take it for a command
      if (!event.ctrlKey && !event.metaKey && !event.altKey) event.stopPropagation();
    });
    part("plane").addEventListener("keydown", (event) => {
      const direction = ARROWS[event.key];
      if (!direction) return;
      event.preventDefault();
      const step = plane.step * (event.shiftKey ? BIG_STRIDE : STRIDE);
      move(Array.from(plane.inside(state.z), (value, i) => value + step * direction[i]));
    });
    for (const i of [0, 1]) part(`z${i + 1}`).addEventListener("input", (event) =>
      move(Array.from(state.z, (value, j) => (i === j ? Number(event.target.value) : value))));
    part("clear").addEventListener("click", () =>
      change({ strokes: [], image: null, source: state.source === "posterior" ? "hand" : state.source,
               sampled: "prior" }));
    for (const source of ["posterior", "prior"]) part(source).addEventListener("click", () =>
      change({ source, noise: Array.from({ length: CLOUD }, normals) }));
    part("temperature").addEventListener("input", (event) =>
      change({ temperature: Number(event.target.value), source: state.sampled }));

    const choose = (n) => change({ strokes: [], image: testImage(n), source: "posterior",
                                   what: `A test image, labelled ${payload.imageLabels[n]},` });
    const thumbs = [...new Set(payload.imageLabels)].map((label) => {
      const rows = payload.imageLabels.flatMap((each, n) => (each === label ? [n] : []));
      const button = document.createElement("button"), canvas = document.createElement("canvas");
      let next = 0;
      button.type = "button";
      button.setAttribute("aria-label", `Next test image of a ${label}`);
      button.append(canvas);
      button.addEventListener("click", () => {
        choose(rows[next]);
        next = (next + 1) % rows.length;
      });
      part("thumbs").append(button);
      return () => paint(canvas, testImage(rows[0]), theme);
    });

    function restyle() {
      if (!root.isConnected) return;  // a notebook has put this output away
      theme = themeOf(part("plane"), part("z1"));
      plane.prepare(theme);
      for (const show of thumbs) show();
      change({ paperChanged: true });
    }

    for (const i of [1, 2]) Object.assign(part(`z${i}`), { min: -plane.reach, max: plane.reach, step: plane.step });
    root.classList.add("alive");
    restyle();
    new ResizeObserver(restyle).observe(part("plane"));
    choose(0);
    root.explorer = { restyle, get state() {
      const { image, posterior, z, logits, reconstruction, source, strokes, milliseconds } = state;
      const points = strokes.flat().length;
      const shown = { image, ...posterior, z, logits, reconstruction, source, points, milliseconds };
      const plain = (value) => (ArrayBuffer.isView(value) ? Array.from(value) : value);
      return Object.fromEntries(Object.entries(shown).map(([key, value]) => [key, plain(value)]));
    } };
    watch(root, restyleAgain);
  }

  const restyleAgain = ({ explorer }) => explorer.restyle();  // out here it holds no explorer

  const start = (name, payload) =>
    LatentPage.start("explorer", name, {}, (root) => explore(root, payload));

  return { start };
})();
