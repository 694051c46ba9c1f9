// Paint numbers with the colours of gpunn/reports/filters.py, matplotlib's RdBu_r: white is 0, red above, blue below.
// They differ under every common colour blindness, and are the same on a dark page.

const ANCHORS = [
  [5, 48, 97], [33, 102, 172], [67, 147, 195], [146, 197, 222], [209, 229, 240], [247, 247, 247],
  [253, 219, 199], [244, 165, 130], [214, 96, 77], [178, 24, 43], [103, 0, 31],
]; // prettier-ignore
const STEPS = 512;
const TABLE = new Uint32Array(STEPS + 1);
const GREY = new Uint32Array(256);
const NONE = packed(160, 160, 160); // of NaN
for (let step = 0; step <= STEPS; step += 1) {
  const at = (step / STEPS) * (ANCHORS.length - 1);
  const low = Math.min(Math.floor(at), ANCHORS.length - 2);
  const [r, g, b] = [0, 1, 2].map((i) => Math.round(ANCHORS[low][i] + (at - low) * (ANCHORS[low + 1][i] - ANCHORS[low][i])));
  TABLE[step] = packed(r, g, b);
}
for (let value = 0; value < 256; value += 1) GREY[value] = packed(value, value, value);

function packed(r, g, b) {
  return (255 << 24) | (b << 16) | (g << 8) | r; // in the byte order of an ImageData
}

/** Return the range and largest size of the finite values, and whether some are below 0. */
export function extremes(values) {
  let low = 0;
  let high = 0;
  for (const value of values) {
    if (value < low && value !== -Infinity) low = value;
    else if (value > high && value !== Infinity) high = value;
  }
  return { low, high, largest: Math.max(-low, high) || 1, signed: low < 0 };
}

/** Return a function from numbers to colours: 0 is white, NaN grey. */
export function colourOf({ largest }) {
  const factor = STEPS / 2 / largest;
  return (value) => (value === value ? TABLE[Math.min(STEPS, Math.max(0, Math.round(STEPS / 2 + value * factor)))] : NONE);
}

/** Return the colour of a number as CSS. */
export function cssColour(value, scale) {
  const bits = colourOf(scale)(value);
  return `rgb(${bits & 255} ${(bits >> 8) & 255} ${(bits >> 16) & 255})`;
}

/** Paint one channel of values (height, width, channels), or of a vector (height 1), at native size. */
export function tile({ shape, data }, channel, colour) {
  const [height, width, channels] = sides(shape);
  const image = new ImageData(width, height);
  const pixels = new Uint32Array(image.data.buffer);
  for (let at = 0; at < pixels.length; at += 1) pixels[at] = colour(data[at * channels + channel]);
  return image;
}

/**
 * Paint an input: one channel dark on light, three as red, green and blue, others by their mean. The range is `low` to
 * `high` of the network's input, by default that of these numbers.
 */
export function pixels({ shape, data }, range = {}) {
  const [height, width, channels] = sides(shape);
  const image = new ImageData(width, height);
  const out = new Uint32Array(image.data.buffer);
  const found = extremes(data);
  const low = range.low ?? found.low;
  let high = range.high ?? found.high;
  if (!(high > low)) high = low + 1;
  const byte = (value) => Math.min(255, Math.max(0, Math.round((255 * (value - low)) / (high - low)) || 0));
  for (let at = 0; at < out.length; at += 1) {
    const first = at * channels;
    if (channels === 3) out[at] = packed(byte(data[first]), byte(data[first + 1]), byte(data[first + 2]));
    else {
      let sum = 0;
      for (let channel = 0; channel < channels; channel += 1) sum += data[first + channel];
      out[at] = GREY[255 - byte(sum / channels)];
    }
  }
  return image;
}

/** Paint a vector in rows of `across` values. */
export function rows({ data }, across, colour) {
  const image = new ImageData(Math.min(across, data.length), Math.ceil(data.length / across));
  const pixels = new Uint32Array(image.data.buffer);
  for (let at = 0; at < data.length; at += 1) pixels[at] = colour(data[at]);
  return image;
}

/** Return height, width and channels of a shape; a vector is a row, or a square if it fills one. */
export function sides(shape) {
  if (shape.length === 3) return shape;
  if (shape.length === 2) return [...shape, 1];
  const side = Math.sqrt(shape[0] ?? 1);
  return Number.isInteger(side) && side >= 8 ? [side, side, 1] : [1, shape[0] ?? 1, 1];
}

/** Show an ImageData in a canvas with every value a crisp square, about `side` CSS pixels wide in all. */
export function enlarge(canvas, image, side) {
  const most = Math.max(image.width, image.height);
  const factor = Math.max(1, Math.floor(side / most));
  canvas.width = image.width;
  canvas.height = image.height;
  canvas.getContext("2d").putImageData(image, 0, 0);
  const shrunk = Math.min(1, side / most);
  canvas.style.width = `${factor > 1 ? image.width * factor : image.width * shrunk}px`;
  canvas.style.height = `${factor > 1 ? image.height * factor : image.height * shrunk}px`;
}
