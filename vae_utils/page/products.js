"use strict";
/* Products of matrices in WebAssembly: C += A B in tiles of 4 rows and 8 columns, whose inner loop
 * is assembled here, byte by byte, for four numbers at once (SIMD). Measured in benchmarks/lab.py.
 */
globalThis.LatentProducts = (() => {
  const ROOM = 32, MEBIBYTE = 2 ** 20, PAGE = 2 ** 16;  // the lab's largest network takes 28 MiB
  const ROWS = 4, COLUMNS = 8;

  // Instructions, see the specification of WebAssembly, "Binary format"
  const get = (local) => [0x20, local], set = (local) => [0x21, local];
  const constant = (value) => [0x41, value], PLUS = 0x6a, TIMES = 0x6c;
  const WIDE = { type: 0x7b, lanes: 4, load: [0xfd, 0x00, 2], store: [0xfd, 0x0b, 2],
                 spread: [0xfd, 0x09, 2, 0], add: [0xfd, 0xe4, 1], multiply: [0xfd, 0xe6, 1] };
  const NARROW = { type: 0x7d, lanes: 1, load: [0x2a, 2], store: [0x38, 2],
                   spread: [0x2a, 2, 0], add: [0x92], multiply: [0x94] };

  /** The code of tile(a, b, c, depth, aRow, aColumn, width): it adds the product of `rows` rows of A
   *  and `vectors` vectors of columns of B to C. Steps are in bytes; B and C are as wide. */
  function tile(rows, vectors, kind) {
    const [A, B, C, DEPTH, A_ROW, A_COLUMN, WIDTH] = Array(7).keys();
    const range = (count) => [...Array(count).keys()];
    const place = range(rows).map((r) => (r ? WIDTH + r : A));  // pointers into the rows of A
    const value = WIDTH + rows, right = value + 1;
    const sums = range(rows).map((r) => range(vectors).map((v) => right + vectors + r * vectors + v));
    const row = (r) => [...get(C), ...get(WIDTH), ...constant(r), TIMES, PLUS];
    const offset = (v) => 4 * kind.lanes * v;
    const each = (code) => sums.flatMap((line, r) => line.flatMap((sum, v) => code(sum, r, v)));
    const advance = (pointer, step) => [...get(pointer), ...get(step), PLUS, ...set(pointer)];
    return [
      2, rows - 1, 0x7f, 1 + vectors * (rows + 1), kind.type,  // two kinds of locals: i32, then numbers
      ...place.flatMap((pointer, r) =>
        [...get(A), ...get(A_ROW), ...constant(r), TIMES, PLUS, ...set(pointer)]),
      ...each((sum, r, v) => [...row(r), ...kind.load, offset(v), ...set(sum)]),
      0x03, 0x40,  // loop
      ...range(vectors).flatMap((v) => [...get(B), ...kind.load, offset(v), ...set(right + v)]),
      ...place.flatMap((pointer, r) => [
        ...get(pointer), ...kind.spread, ...set(value),
        ...sums[r].flatMap((sum, v) => [
          ...get(value), ...get(right + v), ...kind.multiply, ...get(sum), ...kind.add, ...set(sum)]),
        ...advance(pointer, A_COLUMN)]),
      ...advance(B, WIDTH),
      ...get(DEPTH), ...constant(1), 0x6b, 0x22, DEPTH, 0x0d, 0, 0x0b,  // while (--depth)
      ...each((sum, r, v) => [...row(r), ...get(sum), ...kind.store, offset(v)]),
      0x0b];
  }

  /** The bytes of a module that exports the four tiles, named by rows and columns. */
  function assemble() {
    const size = (n) => (n < 128 ? [n] : [(n & 127) | 128, ...size(n >> 7)]);
    const counted = (items) => [...size(items.length), ...items.flat()];
    const name = (text) => [...size(text.length), ...new TextEncoder().encode(text)];
    const section = (number, bytes) => [number, ...size(bytes.length), ...bytes];
    const tiles = [[ROWS, COLUMNS], [1, COLUMNS], [ROWS, 1], [1, 1]];
    const codes = tiles.map(([rows, columns]) =>
      columns === 1 ? tile(rows, 1, NARROW) : tile(rows, columns / WIDE.lanes, WIDE));
    return Uint8Array.from([
      0, 0x61, 0x73, 0x6d, 1, 0, 0, 0,
      ...section(1, counted([[0x60, 7, ...Array(7).fill(0x7f), 0]])),
      ...section(2, counted([[...name("page"), ...name("memory"), 2, 0, 1]])),
      ...section(3, counted(tiles.map(() => [0]))),
      ...section(7, counted(tiles.map(([rows, columns], i) => [...name(`tile${rows}x${columns}`), 0, i]))),
      ...section(10, counted(codes.map((code) => [...size(code.length), ...code])))]);
  }

  const compiled = new WebAssembly.Module(assemble());

  /** Return `{ array, clear, multiply }`: arrays of float32 in one memory, and their product. */
  function products() {
    const memory = new WebAssembly.Memory({ initial: ROOM * MEBIBYTE / PAGE });
    const { exports: run } = new WebAssembly.Instance(compiled, { page: { memory } });
    let used = 0;

    function array(length) {
      const start = used;
      used += 16 * Math.ceil(length / 4);
      return new Float32Array(memory.buffer, start, length).fill(0);
    }

    /** Give all arrays' places to those that come next. */
    function clear() {
      used = 0;
    }

    /** C += A B for A (rows x depth), B (depth x columns), row by row; with `turned` A lies in
     *  memory as its transpose. */
    function multiply(a, b, c, rows, depth, columns, turned = false) {
      const [aRow, aColumn] = turned ? [4, 4 * rows] : [4 * depth, 4], width = 4 * columns;
      for (let j = 0; j < columns;) {
        const wide = columns - j >= COLUMNS;
        const [four, one] = wide ? [run.tile4x8, run.tile1x8] : [run.tile4x1, run.tile1x1];
        const right = b.byteOffset + 4 * j, sum = c.byteOffset + 4 * j;
        let i = 0;
        for (; i + ROWS <= rows; i += ROWS)
          four(a.byteOffset + i * aRow, right, sum + i * width, depth, aRow, aColumn, width);
        for (; i < rows; i++)
          one(a.byteOffset + i * aRow, right, sum + i * width, depth, aRow, aColumn, width);
        j += wide ? COLUMNS : 1;
      }
    }

    return { array, clear, multiply };
  }

  return { products };
})();
