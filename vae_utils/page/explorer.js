"use strict";
/* The latent explorer: runs the encoder and the decoder of a VAE on a page.
 *
 *   1. networks   layers of Keras, with the weights that explorer.py has packed
 *   2. losses     the two parts of the negative ELBO, in nats
 *   3. drawing    strokes become an image like those of MNIST
 *   4. plane      test points, the posterior's ellipse, the point z
 *   5. explorer   what is shown, and what happens at a touch
 *
 * `LatentExplorer.start(name, payload)` brings the element with data-explorer="name" to life. Its
 * property `explorer.state` is a copy of what is shown, for tests: image, mean, logVar, sigma, kl,
 * z, logits, reconstruction, source of z, how many points the strokes have, and the milliseconds
 * that the last frame took.
 */
var LatentExplorer = (() => {
  const SIZE = 28;

  // 1. Networks

  /** Decode an array that explorer.py has packed: deflated, then written in base64. */
  async function unpack(text, Type) {
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Type(await new Response(stream).arrayBuffer());
  }

  const sigmoid = (a) => 1 / (1 + Math.exp(-a));
  const softplus = (a) => Math.max(a, 0) + Math.log1p(Math.exp(-Math.abs(a)));
  const ACTIVATIONS = {
    relu: (a) => Math.max(a, 0),
    elu: (a) => (a > 0 ? a : Math.expm1(a)),
    silu: (a) => a * sigmoid(a),
    sigmoid,
    softplus,
    tanh: Math.tanh,
  };

  /** Add the rows of `kernel` from `row` on to y, each times its input. Zeros, as after ReLU, are
   *  free; the others go two at a time, which halves the visits to y. */
  function accumulate(x, from, rows, kernel, row, y, to, columns) {
    let first = 0, above = -1;  // an input that waits for a second, and where its row begins
    for (let i = 0; i < rows; i++) {
      const value = x[from + i];
      if (value === 0) continue;
      const start = (row + i) * columns;
      if (above < 0) {
        first = value;
        above = start;
        continue;
      }
      for (let j = 0; j < columns; j++) y[to + j] += first * kernel[above + j] + value * kernel[start + j];
      above = -1;
    }
    if (above >= 0) for (let j = 0; j < columns; j++) y[to + j] += first * kernel[above + j];
  }

  /** Visit every pixel of the smaller image and every tap: a transposed convolution runs backwards. */
  function convolve(x, y, layer, transposed) {
    const [small, big] = transposed ? [layer.from, layer.to] : [layer.to, layer.from];
    const [height, width, inputs, outputs] = layer.kernelShape;
    const [top, left] = [height, width].map((taps, axis) =>
      Math.max((small[axis] - 1) * layer.stride[axis] + taps - big[axis], 0) >> 1);
    for (let r = 0; r < small[0]; r++) for (let u = 0; u < height; u++) {
      const row = r * layer.stride[0] + u - top;
      if (row < 0 || row >= big[0]) continue;
      for (let c = 0; c < small[1]; c++) for (let v = 0; v < width; v++) {
        const column = c * layer.stride[1] + v - left;
        if (column < 0 || column >= big[1]) continue;
        const inner = r * small[1] + c, outer = row * big[1] + column;
        const [from, to] = transposed ? [inner, outer] : [outer, inner];
        accumulate(x, from * inputs, inputs, layer.kernel, (u * width + v) * inputs, y, to * outputs, outputs);
      }
    }
  }

  function apply(layer, x) {
    let y = x;  // an image is stored row by row: flatten and reshape change nothing
    if (layer.kernel) {
      y = new Float32Array(layer.to.reduce((a, b) => a * b));
      for (let i = 0; i < y.length; i++) y[i] = layer.bias[i % layer.bias.length];
      if (layer.kind === "dense") accumulate(x, 0, x.length, layer.kernel, 0, y, 0, y.length);
      else convolve(x, y, layer, layer.kind === "conv2dtranspose");
    }
    const activation = ACTIVATIONS[layer.activation];
    return activation ? y.map(activation) : y;
  }

  /** Return a function from an input to the list of a network's outputs, all Float32Array. */
  async function network({ layers, outputs }) {
    const ready = await Promise.all(layers.map(async (layer) => {
      if (!layer.kernel) return layer;
      const [steps, step, bias] = await Promise.all([
        unpack(layer.kernel, Int8Array), unpack(layer.step, Float32Array), unpack(layer.bias, Float32Array)]);
      const kernel = Float32Array.from(steps, (value, i) => value * step[i % step.length]);
      return { ...layer, kernel, bias };
    }));
    return (x) => {
      const values = [x];
      for (const layer of ready) values.push(apply(layer, values[layer.input]));
      return outputs.map((place) => values[place]);
    };
  }

  // 2. Losses

  const sum = (array, term) => array.reduce((total, value, i) => total + term(value, i), 0);

  /** KL(q(z|x) ‖ p(z)), the rate. */
  const gaussianKL = (mean, logVar) =>
    0.5 * sum(mean, (m, i) => m * m + Math.exp(logVar[i]) - 1 - logVar[i]);

  /** −log p(x|z), the distortion; `logVar` is that of Gaussian pixels, null for Bernoulli. */
  const negativeLogLikelihood = (x, logits, logVar) => logVar === null
    ? sum(logits, (a, i) => softplus(a) - x[i] * a)
    : 0.5 * sum(logits, (a, i) => Math.log(2 * Math.PI) + logVar + (x[i] - a) ** 2 / Math.exp(logVar));

  /** Two independent draws from N(0, 1), by Box and Muller. */
  function normals() {
    const radius = Math.sqrt(-2 * Math.log(1 - Math.random())), angle = 2 * Math.PI * Math.random();
    return [radius * Math.cos(angle), radius * Math.sin(angle)];
  }

  // 3. Drawing

  const [PAPER, BOX] = [280, 20];  // the canvas in its own pixels; a digit's longer side in the image

  function trace(context, strokes) {
    context.lineCap = context.lineJoin = "round";
    context.beginPath();
    for (const stroke of strokes) {
      const [x, y] = stroke[0];
      context.moveTo(x, y);
      context.lineTo(x + 0.1, y);  // a line without length would not be drawn
      for (const point of stroke) context.lineTo(...point);
    }
    context.stroke();
  }

  /** Turn strokes into pixels as MNIST's were: 20 × 20 at most, centred by mass in 28 × 28. */
  function rasterize(strokes, pen) {
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = SIZE;
    const context = canvas.getContext("2d", { willReadFrequently: true });
    const ends = [0, 1].map((axis) => {
      const values = strokes.flat().map((point) => point[axis]);
      return [Math.min, Math.max].map((further) => values.reduce((a, b) => further(a, b)));
    });
    const length = Math.max(...ends.map(([low, high]) => high - low), PAPER / 5);  // a dot stays a dot
    const scale = (BOX - pen) / length;
    const middle = ends.map(([low, high]) => (scale * (low + high)) / 2);
    const render = (right, down) => {
      context.setTransform(1, 0, 0, 1, 0, 0);
      context.clearRect(0, 0, SIZE, SIZE);
      context.setTransform(scale, 0, 0, scale, SIZE / 2 + right - middle[0], SIZE / 2 + down - middle[1]);
      context.lineWidth = pen / scale;
      trace(context, strokes);
      const { data } = context.getImageData(0, 0, SIZE, SIZE);
      return Float32Array.from({ length: SIZE * SIZE }, (_, i) => data[4 * i + 3] / 255);
    };
    const ink = render(0, 0), mass = sum(ink, (value) => value);
    if (mass === 0) return ink;
    const offset = (position) => SIZE / 2 - 0.5 - sum(ink, (value, i) => value * position(i)) / mass;
    return render(offset((i) => i % SIZE), offset((i) => Math.floor(i / SIZE)));
  }

  /** Paint pixels from 0 (paper) to 1 (ink) on a canvas of 28 × 28. */
  function paint(canvas, pixels, { paper, ink }) {
    const image = new ImageData(SIZE, SIZE);
    pixels.forEach((value, i) => {
      const share = Math.min(Math.max(value, 0), 1);
      for (let c = 0; c < 3; c++) image.data[4 * i + c] = Math.round(paper[c] + (ink[c] - paper[c]) * share);
      image.data[4 * i + 3] = 255;
    });
    canvas.width = canvas.height = SIZE;
    canvas.getContext("2d").putImageData(image, 0, 0);
  }

  // 4. The plane

  const LENS = 8;

  /** Set how names are written: a canvas that changes its size forgets it. */
  function letter(context) {
    context.textAlign = "center";
    context.textBaseline = "middle";
    context.font = "600 12px system-ui, sans-serif";
  }

  const rgb = (color, alpha = 1) => `rgba(${color.join()},${alpha})`;
  const channels = (css) => css.match(/[\d.]+/g).slice(0, 3).map(Number);

  /** Push places apart, in pairs, until names at them no longer cover each other. */
  function spread(places, distance) {
    for (let round = 0; round < 30; round++) places.forEach((a, i) => places.slice(i + 1).forEach((b) => {
      const [x, y] = [b[0] - a[0], b[1] - a[1]], gap = Math.hypot(x, y) || 1;
      const push = Math.max(0, distance / gap - 1) / 2;
      [a[0], a[1], b[0], b[1]] = [a[0] - push * x, a[1] - push * y, b[0] + push * x, b[1] + push * y];
    }));
  }

  class Plane {
    constructor(canvas, points, labels, colors) {
      Object.assign(this, { canvas, points, labels, colors });
      const far = Array.from(points, Math.abs).sort((a, b) => a - b);
      const most = Math.max(3, 1.05 * far[Math.floor(0.99 * (far.length - 1))]);
      const steps = 10 ** (2 - Math.floor(Math.log10(most)));  // in 1: 100 on a plane up to ±10
      this.reach = Math.ceil(steps * most) / steps;
      this.step = 1 / steps;
    }

    /** Position on the canvas, in CSS pixels, of a point of the plane; and back. */
    place([z1, z2]) {
      return [(1 + z1 / this.reach) * this.side / 2, (1 - z2 / this.reach) * this.side / 2];
    }
    point(x, y) {
      return this.inside([(2 * x / this.side - 1) * this.reach, (1 - 2 * y / this.side) * this.reach]);
    }
    inside(z) {
      return z.map((value) => Math.min(Math.max(value, -this.reach), this.reach));
    }

    colorOf(label) {
      const color = this.colors[label % this.colors.length].match(/\w\w/g).map((hex) => parseInt(hex, 16));
      return this.theme.dark ? color.map((value) => Math.round(value + 0.5 * (255 - value))) : color;
    }

    /** Draw what does not move, once: the prior's circles, the points, each label at its median. */
    prepare(theme) {
      this.theme = theme;
      this.side = this.canvas.clientWidth;
      this.ratio = window.devicePixelRatio || 1;
      this.ground = document.createElement("canvas");
      for (const canvas of [this.canvas, this.ground])
        canvas.width = canvas.height = Math.max(1, Math.round(this.side * this.ratio));
      const context = this.ground.getContext("2d");
      context.scale(this.ratio, this.ratio);
      this.ellipses(context, [0, 0], [1, 1], rgb(theme.ink, 0.45), [3, 4]);
      const byLabel = new Map(), places = [], dot = this.labels.length < 1000 ? 3 : 2;
      this.labels.forEach((label, i) => {
        const z = [this.points[2 * i], this.points[2 * i + 1]];
        if (!byLabel.has(label)) byLabel.set(label, []);
        byLabel.get(label).push(z);
        context.fillStyle = rgb(this.colorOf(label), 0.7);
        const [x, y] = this.place(z);
        places.push([x, y]);
        context.fillRect(x - dot / 2, y - dot / 2, dot, dot);
      });
      const inset = this.side / 6 + 6, far = this.side - inset;
      const covers = ([cx, cy]) => places.filter(([x, y]) => Math.hypot(x - cx, y - cy) < inset).length;
      this.lens = [[inset, inset], [far, inset], [inset, far], [far, far]]
        .sort((a, b) => covers(a) - covers(b))[0];
      letter(context);
      const median = (values) => values.sort((a, b) => a - b)[values.length >> 1];
      const medians = Array.from(byLabel.values(), (zs) =>
        this.place([0, 1].map((axis) => median(zs.map((z) => z[axis])))));
      spread(medians, 19);
      for (const [i, label] of [...byLabel.keys()].entries()) {
        const [x, y] = medians[i];
        context.beginPath();
        context.arc(x, y, 8.5, 0, 2 * Math.PI);
        context.fillStyle = rgb(theme.paper, 0.92);
        context.fill();
        context.strokeStyle = rgb(this.colorOf(label));
        context.lineWidth = 1.5;
        context.stroke();
        context.fillStyle = rgb(theme.ink);
        context.fillText(label, x, y + 0.5);
      }
    }

    /** Outline one and two standard deviations around a mean. */
    ellipses(context, mean, sigma, color, dashes = [], zoom = 1) {
      context.strokeStyle = color;
      context.lineWidth = 1.5 / zoom;
      context.setLineDash(dashes);
      for (const k of [1, 2]) {
        context.beginPath();
        const [rx, ry] = sigma.map((value) => (k * value / this.reach) * this.side / 2);
        context.ellipse(...this.place(mean), rx, ry, 0, 0, 2 * Math.PI);
        context.stroke();
      }
      context.setLineDash([]);
    }

    draw(state) {
      const context = this.canvas.getContext("2d");
      context.setTransform(1, 0, 0, 1, 0, 0);
      context.clearRect(0, 0, this.canvas.width, this.canvas.height);
      context.drawImage(this.ground, 0, 0);
      context.scale(this.ratio, this.ratio);
      this.drawMoving(context, state);
      if (state.posterior) this.drawLens(context, state);
    }

    /** Draw q(z|x), samples and the point, at the edge if it lies outside; `zoom` keeps lines thin
     *  under a lens. */
    drawMoving(context, { posterior, cloud, z }, zoom = 1) {
      if (posterior) this.ellipses(context, posterior.mean, posterior.sigma, rgb(this.theme.ink), [], zoom);
      context.fillStyle = rgb(this.theme.accent);
      const half = 1.3 / zoom;
      for (const sample of cloud) {
        const [x, y] = this.place(sample);
        context.fillRect(x - half, y - half, 2 * half, 2 * half);
      }
      for (const [color, width] of [[this.theme.paper, 5], [this.theme.accent, 2.5]]) {
        context.strokeStyle = rgb(color);
        context.lineWidth = width / zoom;
        context.beginPath();
        context.arc(...this.place(this.inside(z)), 7 / zoom, 0, 2 * Math.PI);
        context.stroke();
      }
    }

    /** Draw the surroundings of the posterior's mean, enlarged, in the emptiest corner. */
    drawLens(context, state) {
      const radius = this.side / 6, [cx, cy] = this.lens, [x, y] = this.place(state.posterior.mean);
      context.save();
      context.beginPath();
      context.arc(cx, cy, radius, 0, 2 * Math.PI);
      context.fillStyle = rgb(this.theme.paper);
      context.fill();
      context.strokeStyle = rgb(this.theme.ink, 0.6);
      context.lineWidth = 1;
      context.stroke();
      context.fillStyle = rgb(this.theme.ink);
      const inwards = [cx, cy].map((value) => value + 0.85 * radius * Math.sign(this.side / 2 - value));
      letter(context);
      context.fillText(`×${LENS}`, ...inwards);
      context.clip();
      context.translate(cx, cy);
      context.scale(LENS, LENS);
      context.translate(-x, -y);
      this.drawMoving(context, state, LENS);
      context.restore();
    }

    /** Say what lies around a point: the most frequent label of the nearest test points. */
    neighbourhood([z1, z2], most = 15) {
      const count = Math.min(most, this.labels.length);
      const near = Array.from(this.labels, (label, i) =>
        [(this.points[2 * i] - z1) ** 2 + (this.points[2 * i + 1] - z2) ** 2, label]);
      near.sort((a, b) => a[0] - b[0]);
      const votes = {};
      for (const [, label] of near.slice(0, count)) votes[label] = (votes[label] || 0) + 1;
      const [label, share] = Object.entries(votes).sort((a, b) => b[1] - a[1])[0];
      return `${share === count ? "all" : `${share} of the`} ${count} nearest test images are ${label}s`;
    }
  }

  // 5. The explorer

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

    function drawPaper() {
      const canvas = part("paper"), context = canvas.getContext("2d");
      canvas.width = canvas.height = PAPER;
      part("seen").hidden = !state.strokes.length;
      if (!state.image) return;
      paint(part("seen"), state.image, theme);
      if (!state.strokes.length) return context.drawImage(part("seen"), 0, 0, PAPER, PAPER);
      context.strokeStyle = rgb(theme.ink);
      context.lineWidth = payload.pen * PAPER / SIZE;
      trace(context, state.strokes);
    }

    function frame() {
      waiting = false;
      const start = performance.now();
      if (state.strokes.length && !state.image) state.image = rasterize(state.strokes, payload.pen);
      update();
      if (state.paperChanged) drawPaper();
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

    /** Call `start` where a pointer goes down and `go` along its way, with its place on the canvas. */
    function follow(canvas, start, go) {
      let active = null;
      const at = (event) => {
        const box = canvas.getBoundingClientRect();  // with the border, which is not drawn on
        const [left, top] = [box.left + canvas.clientLeft, box.top + canvas.clientTop];
        return [event.clientX - left, event.clientY - top, canvas.clientWidth];
      };
      canvas.addEventListener("pointerdown", (event) => {
        if (active !== null || event.button) return;
        canvas.setPointerCapture(event.pointerId);
        active = event.pointerId;
        start(...at(event));
      });
      canvas.addEventListener("pointermove", (event) => {
        if (event.pointerId !== active) return;
        const all = event.getCoalescedEvents ? event.getCoalescedEvents() : [];
        for (const each of all.length ? all : [event]) go(...at(each));
      });
      for (const end of ["pointerup", "pointercancel", "lostpointercapture"])
        canvas.addEventListener(end, (event) => { if (event.pointerId === active) active = null; });
    }

    const onPaper = (x, y, width) => [x * PAPER / width, y * PAPER / width];
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
      const style = getComputedStyle(part("plane")), probe = getComputedStyle(part("z1"));
      const [paper, ink] = [style.backgroundColor, style.color].map(channels);
      theme = { paper, ink, accent: channels(probe.accentColor), dark: paper[0] < ink[0] };
      plane.prepare(theme);
      thumbs.forEach((show) => show());
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
    watch(new WeakRef(root));
  }

  /** Restyle an explorer whenever colours or the resolution change. What the document holds must not
   *  hold the explorer, or a notebook would keep the networks of every output that it has replaced. */
  function watch(reference) {
    const gone = new AbortController(), { signal } = gone, themes = new MutationObserver(tell);
    function tell() {
      const root = reference.deref();
      if (root) return root.explorer.restyle();
      themes.disconnect();
      gone.abort();
    }
    function watchResolution() {
      const resolution = matchMedia(`(resolution: ${devicePixelRatio}dppx)`);  // left at any change
      resolution.addEventListener("change", () => {
        watchResolution();
        tell();
      }, { once: true, signal });
    }
    for (const element of [document.documentElement, document.body])
      themes.observe(element, { attributeFilter: ["data-theme", "data-jp-theme-light"] });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", tell, { signal });
    watchResolution();
  }

  /** Start every explorer of this name that has not been started yet; where it fails, say why. */
  function start(name, payload) {
    for (const root of document.querySelectorAll(`[data-explorer="${name}"]`)) {
      if (root.explorer) continue;
      root.explorer = {};
      const needs = { DecompressionStream: "DecompressionStream" in window,
                      "light-dark()": CSS.supports("color", "light-dark(red, red)") };
      const lacking = Object.keys(needs).filter((need) => !needs[need]);
      const told = lacking.length
        ? Promise.reject(new Error(`this browser lacks ${lacking.join(", ")}`))
        : explore(root, payload);
      told.catch((error) => {
        root.classList.remove("alive");
        root.querySelector("figcaption").textContent = `The explorer cannot run here: ${error.message}.`;
      });
    }
  }

  return { start, network };
})();
