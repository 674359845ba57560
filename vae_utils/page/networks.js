"use strict";
/* A VAE's networks on a page: layers of Keras, with the weights that explorer.py has packed, and the
 * two parts of the negative ELBO, in nats.
 */
globalThis.LatentNetworks = (() => {
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

  return { gaussianKL, negativeLogLikelihood, network, normals, sigmoid, softplus, sum, unpack };
})();
