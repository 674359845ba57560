"use strict";
/* A dense VAE that learns: forward and backward pass, the loss with its deliberate mistakes, Adam.
 *
 * inputs - hidden (ReLU) - mean and log-variance; z - hidden (ReLU) - logits or, for the Gaussian
 * likelihood, means with one learned log-variance. Initial distribution and optimizer are Keras's.
 */
globalThis.LatentLearning = (() => {
  const { sigmoid, softplus } = LatentNetworks;
  const CAPACITY = 1024;  // most rows at once
  const PIXEL_LOG_VAR_START = -3;  // as in vae_utils.models
  const DECAY = [0.9, 0.999], EPSILON = 1e-7;  // of Adam, as in Keras
  const STREAMS = { weights: 1, order: 2, noise: 3, evaluation: 4, samples: 5, data: 6 };

  /** Random numbers from a seed: Marsaglia's xorshift128 (2003). */
  class Random {
    constructor(seed, stream) {
      this.state = Uint32Array.of(seed, STREAMS[stream], 0x9e3779b9, 0x243f6a88);
      for (let i = 0; i < 64; i++) this.uniform();  // until seeds that differ in a bit differ in all
    }

    uniform() {
      const { state } = this, t = state[0] ^ (state[0] << 11), last = state[3];
      state.copyWithin(0, 1);
      state[3] = last ^ (last >>> 19) ^ t ^ (t >>> 8);
      return state[3] / 2 ** 32;
    }

    /** Fill an array with draws from N(0, 1), by Box and Muller. */
    normals(array) {
      for (let i = 0; i < array.length; i += 2) {
        const radius = Math.sqrt(-2 * Math.log(1 - this.uniform())), angle = 2 * Math.PI * this.uniform();
        array[i] = radius * Math.cos(angle);
        if (i + 1 < array.length) array[i + 1] = radius * Math.sin(angle);
      }
      return array;
    }

    shuffle(array) {
      for (let i = array.length - 1; i > 0; i--) {
        const j = Math.floor(this.uniform() * (i + 1));
        [array[i], array[j]] = [array[j], array[i]];
      }
      return array;
    }
  }

  /** y = x W + b, for up to CAPACITY rows; W, b and their gradients are parts of longer arrays. */
  class Dense {
    constructor(inputs, outputs, { array, multiply }, parameters, { relu = false, heads = 1 } = {}) {
      Object.assign(this, { inputs, outputs, multiply, relu });
      this.limit = Math.sqrt(6 * heads / (heads * inputs + outputs));  // each head is a layer in Keras
      [this.kernel, this.kernelGradient] = parameters(inputs * outputs);
      [this.bias, this.biasGradient] = parameters(outputs);
      this.turned = array(inputs * outputs);
      this.y = array(CAPACITY * outputs);
      this.dy = array(CAPACITY * outputs);
    }

    forward(x, rows) {
      const { y, bias, outputs } = this;
      for (let i = 0; i < rows; i++) y.set(bias, i * outputs);
      this.x = x;
      this.multiply(x, this.kernel, y, rows, this.inputs, outputs);
      if (this.relu) for (let i = 0; i < rows * outputs; i++) if (y[i] < 0) y[i] = 0;
      return y;
    }

    /** From `dy`, the loss's gradient by y, add to those of W and b and, if wanted, write that of x. */
    backward(rows, dx) {
      const { inputs, outputs, y, dy, kernel, turned, biasGradient } = this;
      if (this.relu) for (let i = 0; i < rows * outputs; i++) if (y[i] === 0) dy[i] = 0;
      this.multiply(this.x, dy, this.kernelGradient, inputs, rows, outputs, true);
      for (let i = 0; i < rows; i++) for (let j = 0; j < outputs; j++) biasGradient[j] += dy[i * outputs + j];
      if (!dx) return;
      for (let i = 0; i < inputs; i++) for (let j = 0; j < outputs; j++) turned[j * inputs + i] = kernel[i * outputs + j];
      dx.fill(0, 0, rows * inputs);
      this.multiply(dy, turned, dx, rows, outputs, inputs);
    }
  }

  /** The deviation from which the noise is scaled, and its derivative by log σ². */
  const SPREADS = {
    right: (logVar) => { const sigma = Math.exp(logVar / 2); return [sigma, sigma / 2]; },
    variance: (logVar) => { const variance = Math.exp(logVar); return [variance, variance]; },
    noiseless: () => [0, 0],
  };

  /** What each dimension is charged at least; a broken KL may be negative, and is left so. */
  const least = (freeBits) => freeBits || -Infinity;

  class VAE {
    constructor({ inputs, hidden, latent, likelihood }, seed = 0, memory = LatentProducts.products()) {
      const { array } = memory, gaussian = likelihood === "gaussian";
      const count = inputs * hidden * 2 + hidden * latent * 3 + hidden * 2 + latent * 2 + inputs + gaussian;
      Object.assign(this, { inputs, latent, gaussian, count });
      this.weights = array(count);
      this.gradient = array(count);
      let used = 0;
      const parameters = (length) => {
        const part = [used, used + length];
        used += length;
        return [this.weights.subarray(...part), this.gradient.subarray(...part)];
      };
      this.encoder = new Dense(inputs, hidden, memory, parameters, { relu: true });
      this.heads = new Dense(hidden, 2 * latent, memory, parameters, { heads: 2 });  // means, then log-variances
      this.decoder = new Dense(latent, hidden, memory, parameters, { relu: true });
      this.output = new Dense(hidden, inputs, memory, parameters);
      if (gaussian) [this.pixelLogVar, this.pixelLogVarGradient] = parameters(1);
      this.x = array(CAPACITY * inputs);
      this.z = array(CAPACITY * latent);
      this.dz = array(CAPACITY * latent);
      this.noise = array(CAPACITY * latent);
      this.initialize(new Random(seed, "weights"));
    }

    /** Uniform weights as Glorot and Bengio (2010) have them, biases of zero. */
    initialize(random) {
      for (const { kernel, limit } of [this.encoder, this.heads, this.decoder, this.output])
        for (let i = 0; i < kernel.length; i++) kernel[i] = limit * (2 * random.uniform() - 1);
      if (this.gaussian) this.pixelLogVar[0] = PIXEL_LOG_VAR_START;
    }

    /** Decode the rows of `z`, in place of the output layer's `y`. */
    decode(rows, broken) {
      const y = this.output.forward(this.decoder.forward(this.z, rows), rows);
      if (broken === "sigmoid") for (let i = 0; i < rows * this.inputs; i++) y[i] = sigmoid(y[i]);
      return y;
    }

    /** Encode the rows of `x`, draw z with the rows of `noise`, decode; return the sums over rows of
     *  both terms, `kl` for each dimension, and `charged`: what a broken loss takes for it. */
    forward(rows, broken = "none") {
      const { x, z, noise, latent, inputs, gaussian } = this, spread = SPREADS[broken] ?? SPREADS.right;
      const heads = this.heads.forward(this.encoder.forward(x, rows), rows);
      const kl = new Float64Array(latent), charged = new Float64Array(latent);
      for (let i = 0; i < rows; i++) for (let d = 0; d < latent; d++) {
        const mean = heads[2 * i * latent + d], logVar = heads[(2 * i + 1) * latent + d];
        z[i * latent + d] = mean + spread(logVar)[0] * noise[i * latent + d];
        const nats = 0.5 * (mean * mean + Math.exp(logVar) - 1 - logVar);
        kl[d] += nats;
        charged[d] += broken === "unused" ? nats + 0.5 * logVar : nats;
      }
      const y = this.decode(rows, broken);
      let reconstruction = 0;
      if (gaussian) {
        const logVar = this.pixelLogVar[0], precision = Math.exp(-logVar);
        for (let i = 0; i < rows * inputs; i++) reconstruction += (x[i] - y[i]) ** 2;
        reconstruction = 0.5 * (precision * reconstruction + rows * inputs * (Math.log(2 * Math.PI) + logVar));
      } else for (let i = 0; i < rows * inputs; i++) reconstruction += softplus(y[i]) - x[i] * y[i];
      return { rows, reconstruction, kl, charged };
    }

    /** What training minimizes, from the sums of `forward`: nats per row. */
    loss({ rows, reconstruction, charged }, { beta = 1, freeBits = 0, broken = "none" } = {}) {
      const rate = charged.reduce((sum, nats) => sum + Math.max(least(freeBits), nats / rows), 0);
      return reconstruction / rows / (broken === "mean" ? this.inputs : 1) + (broken === "sign" ? -beta : beta) * rate;
    }

    /** Write the gradient of `loss` into `gradient`; `sums` are those of the `forward` before. */
    backward(sums, rules = {}) {
      const { rows } = sums, { encoder, heads, decoder, output } = this;
      this.gradient.fill(0);
      this.startAtOutput(rows, rules);
      output.backward(rows, decoder.dy);
      decoder.backward(rows, this.dz);
      this.passTheNoise(sums, rules);
      heads.backward(rows, encoder.dy);
      encoder.backward(rows);
    }

    /** The gradient of the reconstruction term by what the decoder returns. */
    startAtOutput(rows, { broken }) {
      const { x, inputs, gaussian, output: { y, dy } } = this, count = rows * inputs;
      const scale = 1 / rows / (broken === "mean" ? inputs : 1);
      const precision = gaussian ? Math.exp(-this.pixelLogVar[0]) : 1;
      let squares = 0;
      for (let i = 0; i < count; i++) {
        const error = (gaussian ? y[i] : sigmoid(y[i])) - x[i];
        squares += error * error;
        dy[i] = scale * precision * error * (broken === "sigmoid" ? y[i] * (1 - y[i]) : 1);
      }
      if (gaussian) this.pixelLogVarGradient[0] = 0.5 * scale * (count - precision * squares);
    }

    /** From the gradient by z, through z = μ + σ ε, and that of the KL: the gradient by both heads. */
    passTheNoise({ rows, charged }, { beta = 1, freeBits = 0, broken = "none" }) {
      const { dz, noise, latent, heads: { y, dy } } = this, spread = SPREADS[broken] ?? SPREADS.right;
      const pull = (broken === "sign" ? -beta : beta) / rows, kept = broken === "unused" ? 0 : 1;
      for (let d = 0; d < latent; d++) {
        const weight = charged[d] / rows > least(freeBits) ? pull : 0;
        for (let i = 0; i < rows; i++) {
          const at = i * latent + d, mean = 2 * i * latent + d, logVar = mean + latent;
          dy[mean] = dz[at] + weight * y[mean];
          dy[logVar] = dz[at] * noise[at] * spread(y[logVar])[1] + weight * 0.5 * (Math.exp(y[logVar]) - kept);
        }
      }
    }

    /** Run `visit(start, rows)` over `count` rows, at most CAPACITY at once. */
    chunks(count, visit) {
      for (let start = 0; start < count; start += CAPACITY) visit(start, Math.min(CAPACITY, count - start));
    }

    /** Judge rows of data with given noise: both terms as they are, the loss as `rules` have it. */
    evaluate(data, noise, rules) {
      const { latent, inputs } = this, rows = data.length / inputs;
      const means = new Float32Array(rows * latent), sigmas = new Float32Array(rows * latent);
      const total = (broken) => {
        const scale = broken === "scaled" ? 1 / rules.white : 1;
        const sums = { rows, reconstruction: 0, kl: new Float64Array(latent), charged: new Float64Array(latent) };
        this.chunks(rows, (start, count) => {
          for (let i = 0; i < count * inputs; i++) this.x[i] = data[start * inputs + i] * scale;
          this.noise.set(noise.subarray(start * latent, (start + count) * latent));
          const part = this.forward(count, broken);
          sums.reconstruction += part.reconstruction;
          for (const name of ["kl", "charged"]) part[name].forEach((nats, d) => { sums[name][d] += nats; });
          for (let i = 0; i < count; i++) for (let d = 0; d < latent; d++) {
            means[(start + i) * latent + d] = this.heads.y[2 * i * latent + d];
            sigmas[(start + i) * latent + d] = Math.exp(this.heads.y[(2 * i + 1) * latent + d] / 2);
          }
        });
        return sums;
      };
      const decoder = rules.broken === "sigmoid" ? "sigmoid" : "none";  // it belongs to the decoder
      const charged = total(rules.broken);  // first, since the honest pass has the right means
      const honest = rules.broken === decoder ? charged : total(decoder);
      const reconstruction = honest.reconstruction / rows, klPerDimension = honest.kl.map((nats) => nats / rows);
      const kl = klPerDimension.reduce((a, b) => a + b);
      return { loss: this.loss(charged, rules), reconstruction, kl, negativeElbo: reconstruction + kl,
               klPerDimension, means, sigmas };
    }

    /** Decode points of the latent space; return logits or means. */
    decoded(z, broken) {
      const { latent, inputs } = this, all = new Float32Array(z.length / latent * inputs);
      this.chunks(z.length / latent, (start, rows) => {
        this.z.set(z.subarray(start * latent, (start + rows) * latent));
        all.set(this.decode(rows, broken).subarray(0, rows * inputs), start * inputs);
      });
      return all;
    }
  }

  /** Kingma and Ba's optimizer (2015), in the form that Keras has: ε after the correction of bias. */
  class Adam {
    constructor(count) {
      Object.assign(this, { step: 0, first: new Float32Array(count), second: new Float32Array(count) });
    }

    apply(weights, gradient, rate) {
      const { first, second } = this, [b1, b2] = DECAY, t = ++this.step;
      const size = rate * Math.sqrt(1 - b2 ** t) / (1 - b1 ** t);
      for (let i = 0; i < weights.length; i++) {
        const g = gradient[i];
        first[i] += (g - first[i]) * (1 - b1);
        second[i] += (g * g - second[i]) * (1 - b2);
        weights[i] -= size * first[i] / (Math.sqrt(second[i]) + EPSILON);
      }
    }
  }

  /** A model, its data in random batches, and the schedule. `rows` holds `count` rows of numbers,
   *  to be divided by `white`; `white` once more is what the setting "scaled" does. */
  class Training {
    constructor(model, rows, white, settings) {
      const count = rows.length / model.inputs;
      Object.assign(this, { model, rows, white, count, settings, step: 0, seen: 0, at: count });
      this.lastBeta = this.beta;
      this.adam = new Adam(model.count);
      this.order = Uint32Array.from({ length: count }, (_, i) => i);
      this.random = { order: new Random(settings.seed, "order"), noise: new Random(settings.seed, "noise") };
    }

    /** The weight of the KL in the next step. */
    get beta() {
      const { beta, warmup } = this.settings;
      return warmup ? beta * Math.min(1, this.step / warmup) : beta;
    }

    get rules() {
      return { ...this.settings, beta: this.beta, white: this.white };
    }

    /** Take one gradient step; return the loss of its batch. */
    next() {
      const { model, rows, white, settings, rules } = this, { inputs, latent } = model;
      if (this.at >= this.count) {
        this.random.order.shuffle(this.order);
        this.at = 0;
      }
      const batch = Math.min(settings.batch, this.count - this.at);
      const scale = 1 / (settings.broken === "scaled" ? white * white : white);
      for (let i = 0; i < batch; i++) {
        const from = this.order[this.at + i] * inputs;
        for (let j = 0; j < inputs; j++) model.x[i * inputs + j] = rows[from + j] * scale;
      }
      this.random.noise.normals(model.noise.subarray(0, batch * latent));
      const sums = model.forward(batch, settings.broken);
      model.backward(sums, rules);
      this.adam.apply(model.weights, model.gradient, settings.rate);
      this.lastBeta = rules.beta;
      this.at += batch;
      this.seen += batch;
      this.step += 1;
      return model.loss(sums, rules);
    }
  }

  return { Adam, Random, Training, VAE };
})();
