"use strict";
/* What one draws: a pointer leaves strokes, they become an image like those of MNIST, and pixels are painted. */
globalThis.LatentDrawing = (() => {
  const { sum } = LatentNetworks;
  const { rgb } = LatentPage;
  const SIZE = 28;
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

  /** Show strokes on the canvas where one draws, and the image that became of them in its corner; without strokes, the image alone. */
  function showDrawing(paper, seen, { strokes, image }, pen, theme) {
    const context = paper.getContext("2d");
    paper.width = paper.height = PAPER;
    seen.hidden = !strokes.length;
    if (!image) return;
    paint(seen, image, theme);
    if (!strokes.length) return context.drawImage(seen, 0, 0, PAPER, PAPER);
    context.strokeStyle = rgb(theme.ink);
    context.lineWidth = pen * PAPER / SIZE;
    trace(context, strokes);
  }

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

  return { SIZE, follow, onPaper, paint, rasterize, showDrawing };
})();
