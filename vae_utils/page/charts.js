"use strict";
/* Plots on a canvas: axes with names and units, curves, bands, dots, bars, images side by side. */
globalThis.LatentCharts = (() => {
  const { rgb, shade } = LatentPage;
  const FONT = "12px system-ui, sans-serif";
  const MARGIN = { left: 52, right: 10, top: 10, bottom: 36 };
  const DASHES = { solid: [], dashed: [6, 4], dotted: [2, 3] };

  const round = (value) => Number(value.toPrecision(6));

  /** Round places for ticks, about `count` of them, between two ends. */
  function ticks(low, high, count = 5) {
    const raw = (high - low) / count, power = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 5, 10].map((factor) => factor * power).find((each) => each >= raw);
    const first = Math.ceil(low / step - 1e-9);
    return Array.from({ length: Math.floor(high / step + 1e-9) - first + 1 }, (_, i) => round((first + i) * step));
  }

  /** A number for the reader: a true minus sign, few digits, powers of ten for the very large. */
  function readable(value, digits = 1) {
    if (value === undefined || value === null || Number.isNaN(value)) return "–";
    if (!Number.isFinite(value)) return value < 0 ? "−∞" : "∞";
    const text = Math.abs(value) >= 1e5 ? value.toExponential(1).replace("e+", " · 10^") : value.toFixed(digits);
    return text.replace(/^-(0\.?0*)$/, "$1").replace(/-/g, "−");
  }
  const tickText = (value) => (Math.abs(value) >= 1e5 ? value.toExponential(0).replace("e+", "e") : String(value)).replace("-", "−");

  /** The ends of an axis for these values, without the `trim` share at each end, which would flatten the rest. */
  function ends(values, { least = 1, trim = 0 } = {}) {
    const sorted = values.filter(Number.isFinite).sort((a, b) => a - b);
    if (!sorted.length) return [0, least];
    const cut = Math.floor(trim * (sorted.length - 1));
    const [low, high] = [sorted[cut], sorted[sorted.length - 1 - cut]];
    const room = Math.max(0.06 * (high - low), (least - (high - low)) / 2);
    return [low >= 0 ? Math.max(low - room, 0) : low - room, high + room];
  }

  /** A canvas, sharp on every screen, with places for what is drawn in the units of its axes. */
  class Chart {
    constructor(canvas, theme, { x, y, margin = MARGIN, equal = false } = {}) {
      const [width, height, ratio] = [canvas.clientWidth, canvas.clientHeight, devicePixelRatio || 1];
      const size = [width, height].map((side) => Math.max(1, Math.round(side * ratio)));
      if (canvas.width !== size[0] || canvas.height !== size[1]) [canvas.width, canvas.height] = size;
      this.context = canvas.getContext("2d");
      this.context.setTransform(ratio, 0, 0, ratio, 0, 0);
      this.context.clearRect(0, 0, width, height);
      this.context.font = FONT;
      const inner = { left: margin.left, right: width - margin.right, top: margin.top, bottom: height - margin.bottom };
      Object.assign(this, { canvas, theme, width, height, inner, x: { ...x }, y: { ...y } });
      if (equal) this.equalUnits();
    }

    /** Widen one axis until a unit is as long across as up. */
    equalUnits() {
      const { x, y, inner } = this;
      const [wide, high] = [(x.high - x.low) / (inner.right - inner.left), (y.high - y.low) / (inner.bottom - inner.top)];
      const axis = wide < high ? x : y, factor = Math.max(wide, high) / Math.min(wide, high);
      const middle = (axis.low + axis.high) / 2, half = factor * (axis.high - axis.low) / 2;
      [axis.low, axis.high] = [middle - half, middle + half];
    }

    place(x, y) {
      const { inner } = this;
      return [inner.left + (x - this.x.low) / (this.x.high - this.x.low) * (inner.right - inner.left),
              inner.bottom - (y - this.y.low) / (this.y.high - this.y.low) * (inner.bottom - inner.top)];
    }
    point(left, top) {
      const { inner } = this;
      return [this.x.low + (left - inner.left) / (inner.right - inner.left) * (this.x.high - this.x.low),
              this.y.low + (inner.bottom - top) / (inner.bottom - inner.top) * (this.y.high - this.y.low)];
    }

    axes() {
      const { context, inner, theme } = this;
      context.lineWidth = 1;
      context.strokeStyle = rgb(theme.ink, 0.12);
      context.fillStyle = rgb(theme.ink);
      context.setLineDash([]);
      const room = (inner.right - inner.left) / 60;
      for (const value of ticks(this.x.low, this.x.high, Math.min(6, Math.max(2, room)))) {
        if (this.x.whole && !Number.isInteger(value)) continue;
        const [left] = this.place(value, this.y.low);
        this.line([[left, inner.top], [left, inner.bottom]]);
        const text = tickText(value), half = this.context.measureText(text).width / 2;
        this.write(text, Math.min(left, this.width - half - 3), inner.bottom + 11);
      }
      for (const value of ticks(this.y.low, this.y.high, inner.bottom - inner.top < 120 ? 3 : 5)) {
        const [, top] = this.place(this.x.low, value);
        this.line([[inner.left, top], [inner.right, top]]);
        this.write(tickText(value), inner.left - 5, top, "right");
      }
      this.write(this.x.name, (inner.left + inner.right) / 2, this.height - 9);
      context.save();
      context.translate(10, (inner.top + inner.bottom) / 2);
      context.rotate(-Math.PI / 2);
      this.write(this.y.name, 0, 0);
      context.restore();
    }

    write(text, left, top, align = "center", halo = false) {
      this.context.textAlign = align;
      this.context.textBaseline = "middle";
      if (halo) {
        this.context.strokeStyle = rgb(this.theme.paper, 0.8);
        this.context.lineWidth = 3;
        this.context.strokeText(text, left, top);
      }
      this.context.fillText(text, left, top);
    }

    line(places) {
      this.context.beginPath();
      for (const [i, place] of places.entries()) this.context[i ? "lineTo" : "moveTo"](...place);
      this.context.stroke();
    }

    /** Keep what `draw` draws within the axes. */
    within(draw) {
      const { context, inner } = this;
      context.save();
      context.beginPath();
      context.rect(inner.left, inner.top, inner.right - inner.left, inner.bottom - inner.top);
      context.clip();
      draw();
      context.restore();
    }

    curve(points, color, { dash = "solid", width = 2, alpha = 1 } = {}) {
      this.context.strokeStyle = rgb(color, alpha);
      this.context.lineWidth = width;
      this.context.lineJoin = "round";
      this.context.setLineDash(DASHES[dash]);
      this.line(points.map((point) => this.place(...point)));
      this.context.setLineDash([]);
    }

    /** Shade what lies between two curves over the same x. */
    between(xs, low, high, color, alpha = 0.2) {
      const places = [...xs.map((x, i) => this.place(x, high[i])),
                      ...xs.map((x, i) => this.place(x, low[i])).reverse()];
      this.context.fillStyle = rgb(color, alpha);
      this.context.beginPath();
      for (const [i, place] of places.entries()) this.context[i ? "lineTo" : "moveTo"](...place);
      this.context.fill();
    }

    dots(points, color, radius = 1.5) {
      this.context.fillStyle = color;
      for (const point of points) {
        const [left, top] = this.place(...point);
        this.context.fillRect(left - radius, top - radius, 2 * radius, 2 * radius);
      }
    }

    /** A ring that says: here. */
    ring([x, y], color, radius = 7) {
      const [left, top] = this.place(x, y);
      for (const [each, width] of [[this.theme.paper, 5], [color, 2.5]]) {
        this.context.strokeStyle = rgb(each);
        this.context.lineWidth = width;
        this.context.beginPath();
        this.context.arc(left, top, radius, 0, 2 * Math.PI);
        this.context.stroke();
      }
    }

    bars(heights, colorOf, first = 1) {
      for (const [i, height] of heights.entries()) {
        const [left, top] = this.place(first + i - 0.4, Math.min(height, this.y.high));
        const [right, bottom] = this.place(first + i + 0.4, Math.max(this.y.low, 0));
        this.context.fillStyle = colorOf(i);
        this.context.fillRect(left, top, right - left, Math.max(bottom - top, 1));
      }
    }

    /** Names of curves in a row above the axes. */
    legend(entries) {
      let left = 8;
      for (const { name, color, dash = "solid", block } of entries) {
        this.context.strokeStyle = rgb(color);
        this.context.lineWidth = block ? 9 : 2;
        this.context.globalAlpha = block ?? 1;
        this.context.setLineDash(DASHES[dash]);
        this.line([[left, 9], [left + 18, 9]]);
        this.context.globalAlpha = 1;
        this.context.setLineDash([]);
        this.context.fillStyle = rgb(this.theme.ink);
        this.write(name, left + 23, 9, "left");
        left += 23 + this.context.measureText(name).width + 12;
      }
    }
  }

  /** Paint images side by side, `columns` in a row: pixels from 0 (paper) to 1 (ink). */
  function images(canvas, pixels, size, columns, { paper, ink }, gap = 0) {
    const count = Math.floor(pixels.length / (size * size)), rows = Math.ceil(count / columns);
    const width = Math.max(1, columns * (size + gap) - gap), height = Math.max(1, rows * (size + gap) - gap);
    const picture = new ImageData(width, height);
    for (let n = 0; n < count; n++) {
      const corner = Math.floor(n / columns) * (size + gap) * width + (n % columns) * (size + gap);
      for (let i = 0; i < size * size; i++) {
        const share = Math.min(Math.max(pixels[n * size * size + i], 0), 1) || 0;
        const at = 4 * (corner + Math.floor(i / size) * width + i % size);
        for (let c = 0; c < 3; c++) picture.data[at + c] = Math.round(paper[c] + (ink[c] - paper[c]) * share);
        picture.data[at + 3] = 255;
      }
    }
    if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
    canvas.getContext("2d").putImageData(picture, 0, 0);
  }

  return { Chart, MARGIN, ends, images, readable, rgb, shade };
})();
