"use strict";
/* The latent plane: test points, the posterior's ellipse and its lens, the point z. */
globalThis.LatentPlane = (() => {
  const { rgb, shade } = LatentPage;
  const LENS = 8;

  /** Set how names are written: a canvas that changes its size forgets it. */
  function letter(context) {
    context.textAlign = "center";
    context.textBaseline = "middle";
    context.font = "600 12px system-ui, sans-serif";
  }

  /** Push places apart, in pairs, until names at them no longer cover each other. */
  function spread(places, distance) {
    for (let round = 0; round < 30; round++) for (const [i, a] of places.entries()) for (const b of places.slice(i + 1)) {
      const [x, y] = [b[0] - a[0], b[1] - a[1]], gap = Math.hypot(x, y) || 1;
      const push = Math.max(0, distance / gap - 1) / 2;
      [a[0], a[1], b[0], b[1]] = [a[0] - push * x, a[1] - push * y, b[0] + push * x, b[1] + push * y];
    }
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
      return shade(this.colors[label % this.colors.length], this.theme);
    }

    /** Draw what does not move, once: the prior's circles, the points, each label at its median. */
    prepare(theme) {
      this.theme = theme;
      this.side = this.canvas.clientWidth;
      this.ratio = window.devicePixelRatio || 1;
      this.ground ??= document.createElement("canvas");
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

  return { Plane };
})();
