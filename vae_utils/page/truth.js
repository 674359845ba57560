"use strict";
/* One latent dimension, where the truth is known: log p(x) and the posterior by quadrature over z,
 * the exact ELBO, and the best Gaussian q for a point, which splits the gap in two.
 */
globalThis.LatentTruth = (() => {
  const REACH = 8, PER_UNIT = 128, COUNT = 2 * REACH * PER_UNIT + 1;  // the grid on which z is summed
  const SHOWN = 1025, FIRST = (COUNT - SHOWN) / 2;  // the part of it that is drawn, from -4 to 4
  const LOG_2PI = Math.log(2 * Math.PI);
  const FINEST = 1e-3;  // step of the search for the best q
  const grid = Float32Array.from({ length: COUNT }, (_, i) => i / PER_UNIT - REACH);

  /** Nodes and weights for means over N(0, 1): equal steps, which converge fastest for it. */
  function rule(reach, step) {
    const nodes = Array.from({ length: Math.round(2 * reach / step) + 1 }, (_, i) => i * step - reach);
    const density = nodes.map((t) => Math.exp(-t * t / 2)), total = density.reduce((a, b) => a + b);
    return nodes.map((t, i) => [t, density[i] / total]);
  }
  const FINE = rule(6, 0.02), COARSE = rule(4.5, 0.3);

  const gaussianKL = (mean, sigma) => 0.5 * (mean * mean + sigma * sigma - 1) - Math.log(sigma);

  class Truth {
    /** Decode the grid with a model of one latent dimension and a Gaussian likelihood. */
    constructor(model) {
      this.dim = model.inputs;
      this.curve = model.decoded(grid);
      this.logVar = model.pixelLogVar[0];
      this.precision = Math.exp(-this.logVar);
    }

    logDensity(squares) {
      return -0.5 * (this.dim * (LOG_2PI + this.logVar) + this.precision * squares);
    }

    /** Return log p(x) and, on the grid, log p(x, z). */
    exact(x) {
      const { curve, dim } = this, joint = new Float64Array(COUNT);
      let most = -Infinity, sum = 0;
      for (let i = 0; i < COUNT; i++) {
        let squares = 0;
        for (let j = 0; j < dim; j++) squares += (x[j] - curve[i * dim + j]) ** 2;
        joint[i] = this.logDensity(squares) - 0.5 * (LOG_2PI + grid[i] * grid[i]);
        if (joint[i] > most) most = joint[i];
      }
      for (let i = 0; i < COUNT; i++) sum += Math.exp(joint[i] - most);
      return { logLikelihood: most + Math.log(sum / PER_UNIT), joint };
    }

    /** The ELBO of a point with its q. Between points of the grid, and beyond its ends, the decoder
     *  is taken as a line: with ReLUs it is one, but for a few kinks. */
    elbo(x, mean, sigma, rule = FINE) {
      const { curve, dim } = this;
      let squares = 0;
      for (const [t, weight] of rule) {
        const place = (mean + sigma * t + REACH) * PER_UNIT;
        const left = Math.min(Math.max(Math.floor(place), 0), COUNT - 2), part = place - left;
        for (let j = 0; j < dim; j++) {
          const from = curve[left * dim + j], to = curve[(left + 1) * dim + j];
          squares += weight * (x[j] - from - part * (to - from)) ** 2;
        }
      }
      return this.logDensity(squares) - gaussianKL(mean, sigma);
    }

    /** Return mean and deviation of the Gaussian with the highest ELBO for x: there may be several
     *  peaks, so the search starts at the encoder's q and at the posterior's moments. */
    search(x, mean, sigma) {
      const { joint, logLikelihood } = this.exact(x);
      const posterior = joint.map((value) => Math.exp(value - logLikelihood) / PER_UNIT);
      const moment = (term) => posterior.reduce((sum, share, i) => sum + share * term(grid[i]), 0);
      const centre = moment((z) => z), spread = Math.sqrt(moment((z) => (z - centre) ** 2));
      const [one, other] = [this.climb(x, mean, sigma), this.climb(x, centre, spread)];
      return other.elbo > one.elbo ? other : one;
    }

    /** Walk uphill from one q: to the best of four neighbours, or with smaller steps if none is better. */
    climb(x, mean, sigma) {
      let here = { mean, sigma, elbo: this.elbo(x, mean, sigma, COARSE) };
      for (let size = 0.5; size > FINEST;) {
        const { mean: m, sigma: s } = here, stretch = Math.exp(size);
        const around = [[m - size * s, s], [m + size * s, s], [m, s / stretch], [m, s * stretch]]
          .map(([to, width]) => ({ mean: to, sigma: width, elbo: this.elbo(x, to, width, COARSE) }));
        const next = around.reduce((a, b) => (b.elbo > a.elbo ? b : a));
        if (next.elbo > here.elbo) here = next;
        else size /= 2;
      }
      return here;
    }

    /** The best q of a point with its ELBO, never below that of the encoder's. */
    best(x, mean, sigma) {
      const found = this.search(x, mean, sigma), elbo = this.elbo(x, found.mean, found.sigma);
      const given = { mean, sigma, elbo: this.elbo(x, mean, sigma) };
      return elbo > given.elbo ? { ...found, elbo } : given;
    }

    /** Judge points with the encoder's q: means over points, nats. */
    judge(points, means, sigmas, split) {
      const each = (value) => Float64Array.from(means, (mean, i) =>
        value(points.subarray(i * this.dim, (i + 1) * this.dim), mean, sigmas[i]));
      const average = (values) => values.reduce((a, b) => a + b) / values.length;
      const likelihoods = each((x) => this.exact(x).logLikelihood), elbos = each((...q) => this.elbo(...q));
      const logLikelihood = average(likelihoods), elbo = average(elbos), gap = logLikelihood - elbo, parts = {};
      if (split) {
        parts.family = logLikelihood - average(each((...q) => this.best(...q).elbo));
        parts.encoder = gap - parts.family;
      }
      return { curve: shown(this.curve, this.dim), sigma: Math.exp(this.logVar / 2), logLikelihood, elbo, gap, ...parts,
               perPoint: Float32Array.from(likelihoods, (value, i) => value - elbos[i]),
               likelihoods: Float32Array.from(likelihoods) };
    }

    /** The exact posterior of one point beside its q. */
    look(at, mean, sigma, split) {
      const { logLikelihood, joint } = this.exact(at), elbo = this.elbo(at, mean, sigma);
      const posterior = Float32Array.from(shown(joint, 1), (value) => Math.exp(value - logLikelihood));
      return { at: Array.from(at), posterior, mean, sigma, logLikelihood, elbo,
               ...(split && { best: this.best(at, mean, sigma) }) };
    }
  }

  const shown = (values, width) => values.slice(FIRST * width, (FIRST + SHOWN) * width);
  const shownZ = () => shown(grid, 1);

  return { SHOWN, Truth, shownZ };
})();
