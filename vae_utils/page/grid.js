"use strict";
/* The grid of codes: what is shown, and what happens at a touch.
 *
 * `LatentGrid.start(name, payload)` brings the element with data-grid="name" to life. Its property
 * `grid.state` is a copy of what is shown, for tests: image, vectors of the encoder, its codes
 * (chosen), the codes as changed, logits, distortion, the cell in hand.
 */
globalThis.LatentGrid = (() => {
  const { negativeLogLikelihood, network, sigmoid, unpack } = LatentNetworks;
  const { SIZE, follow, onPaper, paint, rasterize, showDrawing } = LatentDrawing;
  const { themeOf, watch } = LatentPage;

  const WORDS_WAIT = 400, GOLDEN_ANGLE = 137.5;  // neighbours in number get unlike hues

  async function explore(root, payload) {
    const [encode, decode, codebook, images] = await Promise.all([
      network(payload.encoder), network(payload.decoder), unpack(payload.codebook, Float32Array),
      unpack(payload.images, Uint8Array)]);
    const part = (name) => root.querySelector(`[data-part="${name}"]`);
    const [rows, columns, dimensions] = payload.grid;
    const count = codebook.length / dimensions, cells = [];
    const testImage = (n) => Float32Array.from(images.subarray(n * SIZE * SIZE, (n + 1) * SIZE * SIZE));
    const state = { strokes: [], image: null, cell: 0, codes: new Array(rows * columns).fill(0) };
    let waiting = false, speaking = 0, theme;

    // What is shown

    function nearest(vectors, k) {
      let best = 0, least = Infinity;
      for (let c = 0; c < count; c++) {
        let apart = 0;
        for (let d = 0; d < dimensions; d++) apart += (vectors[k * dimensions + d] - codebook[c * dimensions + d]) ** 2;
        if (apart < least) [best, least] = [c, apart];
      }
      return best;
    }

    function update() {
      if (state.image && !state.chosen) {
        [state.vectors] = encode(state.image);
        state.chosen = state.codes.map((_, k) => nearest(state.vectors, k));
        state.codes = [...state.chosen];
      }
      const z = Float32Array.from({ length: rows * columns * dimensions }, (_, i) =>
        codebook[state.codes[Math.floor(i / dimensions)] * dimensions + i % dimensions]);
      [state.logits] = decode(z);
      state.distortion = state.image && negativeLogLikelihood(state.image, state.logits, null);
    }

    const isChanged = (k) => Boolean(state.chosen) && state.codes[k] !== state.chosen[k];
    const place = (k) => `row ${Math.floor(k / columns) + 1}, column ${k % columns + 1}`;

    function draw() {
      paint(part("decoded"), state.logits.map(sigmoid), theme);
      cells.forEach((button, k) => {
        button.textContent = state.codes[k];
        button.style.setProperty("--hue", Math.round(state.codes[k] * GOLDEN_ANGLE % 360));
        button.setAttribute("aria-pressed", k === state.cell);
        button.classList.toggle("changed", isChanged(k));
        const before = isChanged(k) ? `, changed from ${state.chosen[k]}` : "";
        button.setAttribute("aria-label", `Code ${state.codes[k]} in ${place(k)}${before}`);
      });
      part("code").value = state.codes[state.cell];
      part("code-value").textContent = state.codes[state.cell];
      part("changed").textContent = cells.filter((_, k) => isChanged(k)).length;
      part("distortion").textContent = state.image ? state.distortion.toFixed(1) : "–";
      part("back").disabled = !state.image;
    }

    function frame() {
      waiting = false;
      if (state.strokes.length && !state.image) state.image = rasterize(state.strokes, payload.pen).map(Math.round);
      update();
      if (state.paperChanged) showDrawing(part("paper"), part("seen"), state, payload.pen, theme);
      state.paperChanged = false;
      draw();
      clearTimeout(speaking);
      speaking = setTimeout(() => { part("words").textContent = words(); }, WORDS_WAIT);
    }

    function words() {
      const k = state.cell, changed = cells.filter((_, n) => isChanged(n)).length;
      const here = `In ${place(k)} stands code ${state.codes[k]}` +
        (isChanged(k) ? `; the encoder chose ${state.chosen[k]}.` : ".");
      if (!state.image) return `Nothing is drawn. ${here}`;
      return `${state.what}: ${changed} of its ${cells.length} codes changed. ${here} ` +
        `The image costs ${state.distortion.toFixed(1)} nats, given these codes.`;
    }

    // What happens

    function change(news) {
      Object.assign(state, news);
      if ("image" in news) Object.assign(state, { chosen: null, paperChanged: true });
      if (!waiting) requestAnimationFrame(frame);
      waiting = true;
    }

    function set(k, code) {
      const codes = [...state.codes];
      codes[k] = (code + count) % count;
      change({ codes, cell: k });
    }

    follow(part("paper"), (...place) => {
      state.strokes.push([onPaper(...place)]);
      change({ image: null, what: "Your drawing" });
    }, (...place) => {
      state.strokes.at(-1)?.push(onPaper(...place));
      change({ image: null });
    });

    root.addEventListener("keydown", (event) => {  // or a notebook would take it for a command
      if (!event.ctrlKey && !event.metaKey && !event.altKey) event.stopPropagation();
    });
    part("cells").style.gridTemplate = `repeat(${rows}, 1fr) / repeat(${columns}, 1fr)`;
    for (let k = 0; k < rows * columns; k++) {
      const button = document.createElement("button");
      button.type = "button";
      button.addEventListener("click", () => set(k, state.codes[k] + 1));
      button.addEventListener("keydown", (event) => {
        const step = { ArrowUp: 1, ArrowDown: -1 }[event.key], side = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
        if (!step && !side) return;
        event.preventDefault();
        if (step) return set(k, state.codes[k] + step);
        const next = (k + side + cells.length) % cells.length;
        cells[next].focus();
        change({ cell: next });
      });
      cells.push(button);
      part("cells").append(button);
    }
    part("code").max = count - 1;
    part("code").addEventListener("input", (event) => set(state.cell, Number(event.target.value)));
    part("back").addEventListener("click", () => { if (state.chosen) change({ codes: [...state.chosen] }); });
    part("clear").addEventListener("click", () => change({ strokes: [], image: null }));

    const choose = (n) => change({ strokes: [], image: testImage(n),
                                   what: `A test image, labelled ${payload.imageLabels[n]}` });
    const thumbs = payload.imageLabels.map((label, n) => {
      const button = document.createElement("button"), canvas = document.createElement("canvas");
      button.type = "button";
      button.setAttribute("aria-label", `Test image of a ${label}`);
      button.append(canvas);
      button.addEventListener("click", () => choose(n));
      part("thumbs").append(button);
      return () => paint(canvas, testImage(n), theme);
    });

    function restyle() {
      if (!root.isConnected) return;  // a notebook has put this output away
      theme = themeOf(part("decoded"), part("code"));
      for (const show of thumbs) show();
      change({ paperChanged: true });
    }

    root.classList.add("alive");
    choose(3);
    restyle();
    root.grid = { restyle, get state() {
      const { image, vectors, chosen, codes, logits, distortion, cell } = state;
      const plain = (value) => (ArrayBuffer.isView(value) ? Array.from(value) : value);
      const shown = { image, vectors, chosen, codes, logits, distortion, cell };
      return Object.fromEntries(Object.entries(shown).map(([key, value]) => [key, plain(value)]));
    } };
    watch(root, restyleAgain);
  }

  const restyleAgain = ({ grid }) => grid.restyle();  // out here it holds no grid

  const start = (name, payload) => LatentPage.start("grid", name, {}, (root) => explore(root, payload));

  return { start };
})();
