// Resize planes as Pillow does, so that the network sees the same picture as in `gpunn predict`.
// Source: Pillow, src/libImaging/Resample.c: weights over areas, columns first, then rows.

import { plane } from "./arrays.js";

const CUBIC = -0.5;
export const FILTERS = {
  box: { support: 0.5, weight: (x) => (x > -0.5 && x <= 0.5 ? 1 : 0) },
  bilinear: { support: 1, weight: (x) => Math.max(0, 1 - Math.abs(x)) },
  bicubic: {
    support: 2,
    weight: (given) => {
      const x = Math.abs(given);
      if (x < 1) return ((CUBIC + 2) * x - (CUBIC + 3)) * x * x + 1;
      return x < 2 ? (((x - 5) * x + 8) * x - 4) * CUBIC : 0;
    },
  },
};

/** Return for each place of the result its first source place, and the weights from there on. */
function weightsOf(from, to, { support, weight }) {
  const scale = from / to;
  const stretch = Math.max(scale, 1);
  const reach = support * stretch;
  return Array.from({ length: to }, (_, place) => {
    const centre = (place + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - reach + 0.5));
    const last = Math.min(from, Math.trunc(centre + reach + 0.5));
    const weights = [];
    let sum = 0;
    for (let x = first; x < last; x++) {
      weights.push(weight((x - centre + 0.5) / stretch));
      sum += weights[weights.length - 1];
    }
    return { first, weights: sum ? weights.map((each) => each / sum) : weights };
  });
}

function across({ data, height, width }, columns, filter, combine) {
  const out = plane(height, columns, new data.constructor(height * columns));
  weightsOf(width, columns, filter).forEach(({ first, weights }, column) => {
    const taps = combine.prepare(weights);
    for (let y = 0; y < height; y++) {
      let sum = combine.start;
      for (let k = 0; k < taps.length; k++) sum += data[y * width + first + k] * taps[k];
      out.data[y * columns + column] = combine.finish(sum);
    }
  });
  return out;
}

function down({ data, height, width }, rows, filter, combine) {
  const out = plane(rows, width, new data.constructor(rows * width));
  weightsOf(height, rows, filter).forEach(({ first, weights }, row) => {
    const taps = combine.prepare(weights);
    for (let x = 0; x < width; x++) {
      let sum = combine.start;
      for (let k = 0; k < taps.length; k++) sum += data[(first + k) * width + x] * taps[k];
      out.data[row * width + x] = combine.finish(sum);
    }
  });
  return out;
}

const PRECISION = 2 ** 22; // bytes are resized in whole numbers, as Pillow does
const FLOATS = { start: 0, prepare: (weights) => weights, finish: (sum) => sum };
const BYTES = {
  start: PRECISION / 2,
  prepare: (weights) => weights.map((each) => Math.trunc(each * PRECISION + (each < 0 ? -0.5 : 0.5))),
  finish: (sum) => Math.min(255, Math.max(0, Math.floor(sum / PRECISION))),
};

/** Resize a plane of floats or of bytes to rows and columns. */
export function resized(given, rows, columns, filter) {
  const combine = given.data instanceof Float32Array ? FLOATS : BYTES;
  const wide = columns === given.width ? given : across(given, columns, filter, combine);
  return rows === wide.height ? wide : down(wide, rows, filter, combine);
}
