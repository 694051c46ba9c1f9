// Find areas of masks, and open planes: gpunn/data/formats/areas.py in the browser.

import { cropped, padded, plane, turned } from "./arrays.js";

/** Find the 8-connected areas of a mask: their sizes and boxes, and the number of each pixel's area. */
export function findAreas({ data, height, width }) {
  const numbers = new Int32Array(data.length).fill(-1);
  const areas = [];
  const waiting = new Int32Array(data.length);
  for (let start = 0; start < data.length; start++) {
    if (!data[start] || numbers[start] >= 0) continue;
    const area = { count: 0, top: height, left: width, bottom: 0, right: 0 };
    let [first, last] = [0, 0];
    waiting[last++] = start;
    numbers[start] = areas.length;
    while (first < last) {
      const at = waiting[first++];
      const [y, x] = [Math.floor(at / width), at % width];
      area.count += 1;
      area.top = Math.min(area.top, y);
      area.left = Math.min(area.left, x);
      area.bottom = Math.max(area.bottom, y + 1);
      area.right = Math.max(area.right, x + 1);
      for (let row = Math.max(0, y - 1); row < Math.min(height, y + 2); row++) {
        for (let column = Math.max(0, x - 1); column < Math.min(width, x + 2); column++) {
          const next = row * width + column;
          if (data[next] && numbers[next] < 0) {
            numbers[next] = areas.length;
            waiting[last++] = next;
          }
        }
      }
    }
    areas.push(area);
  }
  return { areas, numbers };
}

/** Return the length of the vertical run at each pixel of a mask; 0 elsewhere. */
export function runLengths({ data, height, width }) {
  const lengths = new Int32Array(data.length);
  for (let x = 0; x < width; x++) {
    for (let y = 0; y < height; ) {
      let end = y;
      while (end < height && data[end * width + x]) end += 1;
      for (let row = y; row < end; row++) lengths[row * width + x] = end - y;
      y = Math.max(end, y + 1);
    }
  }
  return lengths;
}

/** Take the minimum or maximum of a window along each row, with zeros around the plane. */
export function extremes({ data, height, width }, window, isLeast) {
  const reach = (window - 1) / 2;
  const out = plane(height, width);
  const places = new Int32Array(width + window);
  const row = new Float64Array(width + 2 * reach);
  const sign = isLeast ? -1 : 1;
  for (let y = 0; y < height; y++) {
    let isFlat = true;
    for (let x = 0; x < width; x++) {
      row[reach + x] = sign * data[y * width + x];
      isFlat &&= row[reach + x] === 0;
    }
    if (isFlat) continue;
    let [first, last] = [0, 0]; // of the places that may still hold the maximum
    for (let x = 0; x < row.length; x++) {
      while (last > first && row[places[last - 1]] <= row[x]) last -= 1;
      places[last++] = x;
      if (places[first] <= x - window) first += 1;
      if (x >= window - 1) out.data[y * width + x - window + 1] = sign * row[places[first]];
    }
  }
  return out;
}

/** Open a plane by a square window (morphological opening), with zeros around it. */
export function opened(values, given) {
  const window = given + 1 - (given % 2);
  const margin = (window - 1) / 2; // centre of the outermost window that meets the plane
  let out = padded(values, margin);
  for (const isLeast of [true, false]) {
    out = turned(extremes(out, window, isLeast));
    out = turned(extremes(out, window, isLeast));
  }
  return cropped(out, margin, margin, margin + values.height, margin + values.width);
}

/** Smooth a plane by the weights 1 2 1 across and down. */
export function smoothed(values) {
  let out = values;
  for (let turn = 0; turn < 2; turn++) {
    const { data, height, width } = out;
    const made = plane(height, width);
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++) {
        const at = y * width;
        const [before, after] = [Math.max(0, x - 1), Math.min(width - 1, x + 1)];
        made.data[at + x] = (data[at + before] + 2 * data[at + x] + data[at + after]) / 4;
      }
    }
    out = turned(made);
  }
  return out;
}
