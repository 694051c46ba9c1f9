// Find the drawing in a picture by the steps of gpunn/data/formats/ink.py, so that both find the same.

import { largest, less, meanOf, median, plane, quantileOfOwn, rounded, times, turned } from "./arrays.js";
import { findAreas, opened, runLengths, smoothed } from "./areas.js";

const LEAST_INK = 0.06;
const [WIDEST, WIDEST_OF_LONGER] = [0.3, 0.25];
const [OVER_NOISE, CLEAR, LEFT] = [9, 25, [1.0, 0.375, 0.273, 0.226, 0.196]];
const [BROADEST, FINER, LEAST_LIGHT, DARK_IS_LIKELIER] = [0.2, 0.7, 0.1, 1.2];
const POINTS = 48; // of the longer side, for the fit of the ground
const ROUNDS = [[0.25, 1.0], [0.2, 0.3], [0.15, 0.1], [0.1, 0.03], [0.07, 0.01], [0.05, 0.01], [0.05, 0.01]];
const STEPS = 20;
const GRID = 32;
const [LINE, LINE_COVERS, SLANTS] = [0.02, 0.6, 101];
const [SPECK, NEAR, LIKE] = [0.02, 0.25, 0.5];

/** Find the largest drawing in planes of pixels from 0 to 1, each for `copies` equal ones; null if there is none. */
export function findInk(planes, copies = 1) {
  let pixels = planes;
  let signal = alongInk(withoutGround(pixels.map(pointsOf), copies));
  let noise = noiseOf(signal);
  let smoothings = 0;
  while (smoothings < LEFT.length - 1 && noise * LEFT[smoothings] * CLEAR > largest(signal)) {
    signal = smoothed(signal);
    pixels = pixels.map(smoothed);
    smoothings += 1;
  }
  noise *= LEFT[smoothings];
  const { height, width } = signal;
  const window = Math.max(
    3, rounded(Math.max(WIDEST * Math.min(height, width), WIDEST_OF_LONGER * Math.max(height, width))),
  );
  const nearby = localMedian(signal);
  const grey = meanOf(pixels);
  const hatOf = (sign) => {
    const rise = times(signal, sign);
    return less(rise, opened(rise, window));
  };
  const found = [1, -1].map((sign) => {
    // The hat is the slowest step, and not needed if nothing departs.
    const hat = departs(signal.data, nearby, sign) ? hatOf(sign) : null;
    const support = hat === null ? 0 : supportOf(signal.data, nearby, hat.data, sign);
    return { support: support * (sign > 0 ? DARK_IS_LIKELIER : 1), sign, hat };
  });
  found.sort((one, other) => other.support - one.support);
  let likely = null;
  for (const { sign, hat } of found) {
    const drawing = drawingIn(grey, hat ?? hatOf(sign), noise, sign > 0);
    if (drawing && (!likely || drawing.breadth < FINER * likely.breadth)) likely = drawing;
    if (likely && likely.breadth <= BROADEST) break;
  }
  return likely;
}

/** Return whether any pixel departs from its surroundings. */
function departs(signal, nearby, sign) {
  for (let i = 0; i < signal.length; i++) if (sign * (signal[i] - nearby[i]) > LEAST_INK / 2) return true;
  return false;
}

function supportOf(signal, nearby, hat, sign) {
  let support = 0;
  for (let i = 0; i < signal.length; i++) {
    const value = Math.min(sign * (signal[i] - nearby[i]), hat[i]);
    if (value > LEAST_INK / 2) support += value * value;
  }
  return support;
}

function drawingIn(grey, given, noise, isDark) {
  const { height, width } = given;
  const isInk = above(given.data, Math.max(LEAST_INK, OVER_NOISE * noise));
  const inked = picked(given.data, isInk);
  if (inked.length < 2) return null;
  const hat = given.data.slice();
  if (isDark) {
    // Light falls on ink and ground alike, so ink is the missing share of the light.
    for (let i = 0; i < hat.length; i++) hat[i] /= Math.max(grey.data[i] + hat[i], LEAST_LIGHT);
  }
  const mask = above(hat, otsu(isDark ? picked(hat, isInk) : inked) * 0.9);
  for (let i = 0; i < mask.length; i++) mask[i] &= isInk[i];
  const lines = ruledLines(plane(height, width, mask));
  const rest = mask.slice();
  for (let i = 0; i < mask.length; i++) if (lines[i]) rest[i] = 0;
  const { areas, numbers } = findAreas(plane(height, width, rest));
  const { chosen, others } = cluster(areas, height, width);
  if (!chosen.size) return null;
  const isChosen = areas.map((_, number) => chosen.has(number));
  const drawing = new Uint8Array(mask.length);
  for (let i = 0; i < mask.length; i++) drawing[i] = numbers[i] >= 0 && isChosen[numbers[i]] ? 1 : 0;
  const amount = times(plane(height, width, hat), 1 / quantileOfOwn(picked(hat, drawing), 0.6));
  const found = plane(height, width, drawing);
  return { amount, drawing: found, isDark, breadth: breadthOf(found), others, hadLines: lines.includes(1) };
}

function above(data, least) {
  const out = new Uint8Array(data.length);
  for (let i = 0; i < data.length; i++) out[i] = data[i] > least ? 1 : 0;
  return out;
}

/** Return the numbers under a mask. */
function picked(data, mask) {
  let count = 0;
  for (let i = 0; i < mask.length; i++) count += mask[i];
  const found = new Float64Array(count);
  for (let i = 0, at = 0; i < data.length; i++) if (mask[i]) found[at++] = data[i];
  return found;
}

/** Return the mean width of strokes, twice their area over the length of their outline, as a share of the size. */
function breadthOf({ data, height, width }) {
  let [outline, area, top, left, bottom, right] = [0, 0, height, width, -1, -1];
  for (let y = 0; y <= height; y++) {
    for (let x = 0; x <= width; x++) {
      const here = y < height && x < width ? data[y * width + x] : 0;
      const above = y > 0 && x < width ? data[(y - 1) * width + x] : 0;
      const before = x > 0 && y < height ? data[y * width + x - 1] : 0;
      outline += (here !== above) + (here !== before);
      if (!here) continue;
      area += 1;
      top = Math.min(top, y);
      bottom = Math.max(bottom, y);
      left = Math.min(left, x);
      right = Math.max(right, x);
    }
  }
  return (2 * area) / ((outline * Math.PI) / 4) / (Math.max(bottom - top, right - left) + 1);
}

/** Return sampled points of a plane, and the terms of a quadratic surface at each. */
function pointsOf({ data, height, width }) {
  const step = Math.max(1, Math.floor(Math.max(height, width) / POINTS));
  const place = (count) => Float32Array.from({ length: count }, (_, i) => (count > 1 ? -1 + (2 * i) / (count - 1) : -1));
  const [rows, columns] = [place(height), place(width)];
  const [few, terms] = [[], []];
  for (let y = 0; y < height; y += step) {
    for (let x = 0; x < width; x += step) {
      few.push(data[y * width + x]);
      terms.push(1, rows[y], columns[x], rows[y] ** 2, columns[x] * rows[y], columns[x] ** 2);
    }
  }
  return { few: Float64Array.from(few), terms: Float64Array.from(terms), data, rows, columns, height, width };
}

/** Subtract the ground, a quadratic surface fitted to most of the pixels of each channel. */
function withoutGround(channels, copies) {
  const { terms } = channels[0];
  const count = terms.length / 6;
  const fitted = usualColour(channels.map(({ few }) => few)).map((value) => new Float64Array(count).fill(value));
  let weights = [];
  for (const [reach, stiff] of ROUNDS) {
    const products = Array.from({ length: 6 }, () => new Float64Array(6));
    const right = Array.from({ length: 6 }, () => new Float64Array(channels.length));
    let total = 0;
    for (let i = 0; i < count; i++) {
      let off = 0;
      for (let c = 0; c < channels.length; c++) off += ((channels[c].few[i] - fitted[c][i]) / reach) ** 2;
      const share = 1 / (1 + copies * off) ** 2;
      total += share;
      for (let a = 0; a < 6; a++) {
        const shared = terms[6 * i + a] * share;
        for (let b = 0; b <= a; b++) products[a][b] += shared * terms[6 * i + b];
        for (let c = 0; c < channels.length; c++) right[a][c] += shared * channels[c].few[i];
      }
    }
    for (let a = 0; a < 6; a++) for (let b = 0; b < a; b++) products[b][a] = products[a][b];
    // Regularized, or the surface would follow broad strokes.
    [1e-6, 0.3, 0.3, 1, 1, 1].forEach((each, a) => (products[a][a] += stiff * each * total));
    weights = solved(products, right);
    for (let c = 0; c < channels.length; c++) {
      for (let i = 0; i < count; i++) {
        fitted[c][i] = 0;
        for (let a = 0; a < 6; a++) fitted[c][i] += terms[6 * i + a] * weights[a][c];
      }
    }
  }
  return channels.map(({ data, rows, columns, height, width }, c) => {
    const w = weights.map((row) => row[c]);
    const out = plane(height, width);
    for (let y = 0; y < height; y++) {
      const down = rows[y];
      const [start, slope] = [w[0] + down * w[1] + down * down * w[3], w[2] + down * w[4]];
      for (let x = 0; x < width; x++) {
        const across = columns[x];
        const ground = start + across * slope + across * across * w[5];
        out.data[y * width + x] = data[y * width + x] - Math.fround(ground);
      }
    }
    return out;
  });
}

/** Solve a small positive definite system by elimination. */
function solved(left, right) {
  for (let row = 0; row < left.length; row++) {
    const pivot = left[row][row];
    right[row] = right[row].map((value) => value / pivot);
    left[row] = left[row].map((value) => value / pivot);
    for (let other = 0; other < left.length; other++) {
      if (other === row) continue;
      const factor = left[other][row];
      right[other] = right[other].map((value, c) => value - factor * right[row][c]);
      left[other] = left[other].map((value, c) => value - factor * left[row][c]);
    }
  }
  return right;
}

/** Return the mean colour of the most common brightness. */
function usualColour(few) {
  const brightness = Array.from(few[0], (_, i) => few.reduce((sum, each) => sum + each[i], 0) / few.length);
  const counts = new Float64Array(64);
  for (const value of brightness) if (value >= 0 && value <= 1) counts[Math.min(63, Math.floor(value * 64))] += 1;
  const wide = counts.map((_, at) => {
    let sum = 0;
    for (let k = -5; k <= 5; k++) sum += (counts[at + k] || 0) * (0.5 - 0.5 * Math.cos((Math.PI * (k + 5)) / 5));
    return sum;
  });
  const middle = wide.indexOf(Math.max(...wide)) / 64 + 1 / 128;
  const near = brightness.map((value) => Math.abs(value - middle) <= 4 / 64);
  const count = near.filter(Boolean).length;
  return few.map((each) => each.reduce((sum, value, i) => sum + (near[i] ? value : 0), 0) / count);
}

/** Project colour differences on their principal direction, above 0 for darker. */
function alongInk(departs) {
  const [{ height, width }, count] = [departs[0], departs.length];
  const spread = departs.map(() => new Float64Array(count));
  for (let y = 0; y < height; y += 2) {
    for (let x = 0; x < width; x += 2) {
      const at = y * width + x;
      let square = 0;
      for (let c = 0; c < count; c++) square += departs[c].data[at] ** 2;
      const factor = Math.min(square, 0.25);
      if (!factor) continue;
      for (let a = 0; a < count; a++) {
        for (let b = 0; b < count; b++) spread[a][b] += departs[a].data[at] * departs[b].data[at] * factor;
      }
    }
  }
  let axis = new Array(count).fill(1);
  for (let step = 0; step < STEPS; step++) {
    axis = spread.map((row) => row.reduce((sum, value, c) => sum + value * axis[c], 0));
    const length = Math.max(Math.sqrt(axis.reduce((sum, value) => sum + value * value, 0)), 1e-30);
    axis = axis.map((value) => value / length);
  }
  const sign = axis.reduce((sum, value) => sum + value, 0) > 0 ? -1 : 1;
  axis = axis.map((value) => Math.fround((value * sign) / Math.sqrt(count)));
  const out = plane(height, width);
  for (let i = 0; i < out.data.length; i++) {
    let sum = 0;
    for (let c = 0; c < count; c++) sum += departs[c].data[i] * axis[c];
    out.data[i] = sum;
  }
  return out;
}

/** Estimate the standard deviation of noise by second differences (Immerkær 1996). */
function noiseOf({ data, height, width }) {
  if (height < 3 || width < 3) return 0;
  const rows = (at) => data[at - width] - 2 * data[at] + data[at + width];
  const both = new Float32Array((height - 2) * (width - 2));
  for (let y = 1, i = 0; y < height - 1; y++) {
    for (let x = 1; x < width - 1; x++, i++) {
      const at = y * width + x;
      both[i] = Math.abs(rows(at - 1) - 2 * rows(at) + rows(at + 1));
    }
  }
  return quantileOfOwn(both, 0.5) / 0.6745 / 6;
}

/** Return a coarse median of the half of the picture around each pixel. */
function localMedian({ data, height, width }) {
  const step = Math.max(1, Math.ceil(Math.max(height, width) / GRID));
  const places = (length) => {
    const found = [];
    for (let at = Math.min(Math.floor(step / 2), length - 1); at < length; at += step) found.push(at);
    return found;
  };
  const [rows, columns] = [places(height), places(width)];
  const [reachY, reachX] = [rows, columns].map((each) => Math.max(1, Math.floor(each.length / 4)));
  const mirrored = (at, count) => (at < 0 ? -at - 1 : at >= count ? 2 * count - at - 1 : at);
  const [tall, wide] = [2 * reachY + 1, 2 * reachX + 1];
  const few = Array.from({ length: rows.length + 2 * reachY }, (_, y) => {
    const from = rows[mirrored(y - reachY, rows.length)] * width;
    return Array.from({ length: columns.length + 2 * reachX }, (__, x) => data[from + columns[mirrored(x - reachX, columns.length)]]);
  });
  const near = new Float64Array(tall * wide);
  const medians = rows.map((_, y) =>
    columns.map((__, x) => {
      for (let a = 0; a < tall; a++) for (let b = 0; b < wide; b++) near[a * wide + b] = few[y + a][x + b];
      return quantileOfOwn(near, 0.5);
    }),
  );
  const out = new Float32Array(data.length);
  for (let y = 0; y < height; y++) {
    const row = medians[Math.min(Math.floor(y / step), rows.length - 1)];
    for (let x = 0; x < width; x++) out[y * width + x] = row[Math.min(Math.floor(x / step), columns.length - 1)];
  }
  return out;
}

/** Return the threshold between two classes of numbers (Otsu 1979); the least number if all are equal. */
function otsu(values) {
  let [low, high] = [Infinity, -Infinity];
  for (const value of values) [low, high] = [Math.min(low, value), Math.max(high, value)];
  if (high - low < 1e-4) return low;
  const edge = (number) => (number === 128 ? high : low + (number * (high - low)) / 128);
  const counts = new Float64Array(128);
  for (const value of values) {
    let number = Math.min(127, Math.floor(((value - low) / (high - low)) * 128));
    if (value < edge(number)) number -= 1;
    else if (number < 127 && value >= edge(number + 1)) number += 1;
    counts[number] += 1;
  }
  let [below, sum, best, at] = [0, 0, -Infinity, 0];
  const middle = (number) => (edge(number) + edge(number + 1)) / 2;
  const total = counts.reduce((many, count) => many + count, 0);
  const whole = counts.reduce((much, count, number) => much + count * middle(number), 0);
  for (let number = 0; number < 127; number++) {
    below += counts[number];
    sum += counts[number] * middle(number);
    const above = total - below;
    const between = below * above * (sum / below - (whole - sum) / above) ** 2;
    if (between > best) [best, at] = [between, number];
  }
  return edge(1 + at);
}

/** Mark the pixels of ruled lines, horizontal or vertical, except where strokes cross them. */
function ruledLines(mask) {
  const found = new Uint8Array(mask.data.length);
  for (const isTurned of [false, true]) {
    const { data, height, width } = isTurned ? turned(mask) : mask;
    const thickest = Math.max(2, rounded(LINE * Math.max(height, width)));
    const lengths = runLengths({ data, height, width });
    const points = [];
    for (let at = 0; at < data.length; at++) if (data[at] && lengths[at] <= 2 * thickest) points.push(at);
    if (points.length < LINE_COVERS * width) continue;
    const lean = rounded(0.25 * width) + 1;
    const rows = Float64Array.from(points, (at) => Math.floor(at / width));
    const columns = Float64Array.from(points, (at) => (at % width) - width / 2);
    const placeOf = (i, slant) => rounded(rows[i] - slant * columns[i]) + lean;
    let [best, counts, slope] = [0, null, 0];
    for (let number = 0; number < SLANTS; number++) {
      const slant = -0.25 + (0.5 * number) / (SLANTS - 1);
      const at = new Float64Array(height + 2 * lean);
      for (let i = 0; i < points.length; i++) at[placeOf(i, slant)] += 1;
      let score = 0;
      for (let place = 0; place < at.length; place++) score += at[place] ** 2;
      if (score > best) [best, counts, slope] = [score, at, slant];
    }
    const isLine = Array.from(counts, (count) => count >= LINE_COVERS * width);
    if (!isLine.some(Boolean)) continue;
    const isNear = isLine.map((value, at) => value || isLine[at - 1] || isLine[at + 1]);
    const hit = points.filter((_, i) => isNear[placeOf(i, slope)]);
    const thick = median(hit.map((at) => lengths[at]));
    for (const at of hit) {
      if (lengths[at] > 1.6 * thick + 1) continue;
      const [y, x] = [Math.floor(at / width), at % width];
      found[isTurned ? x * mask.width + y : at] = 1;
    }
  }
  let [rest, all] = [0, 0];
  mask.data.forEach((value, i) => {
    all += value;
    rest += value && !found[i] ? 1 : 0;
  });
  return rest >= 0.05 * all ? found : found.fill(0);
}

/** Choose the areas of the largest drawing, and count the others of similar size. */
function cluster(areas, height, width) {
  const sizes = areas.map((area) => Math.max(area.bottom - area.top, area.right - area.left));
  const isInner = areas.map((a) => a.top > 0 && a.left > 0 && a.bottom < height && a.right < width);
  const anyInside = areas.some((_, i) => isInner[i] && sizes[i] >= 0.04 * Math.max(height, width));
  const allowed = areas.map((_, i) => (anyInside ? isInner[i] : true));
  if (!areas.length) return { chosen: new Set(), others: 0 };
  let main = 0;
  const weight = (i) => (allowed[i] ? areas[i].count * sizes[i] : 0);
  areas.forEach((_, i) => (main = weight(i) > weight(main) ? i : main));
  const [box, extent, total] = [areas[main], sizes[main], areas[main].count];
  const chosen = new Set([main]);
  areas.forEach((area, i) => {
    if (!allowed[i] || i === main || area.count < SPECK * total) return;
    const gap = Math.max(
      area.top - box.bottom, box.top - area.bottom, area.left - box.right, box.left - area.right, 0,
    );
    const shared = Math.min(area.right, box.right) - Math.max(area.left, box.left);
    const across = shared / Math.min(area.right - area.left, box.right - box.left);
    const isOwn = sizes[i] >= LIKE * extent && across < 0.4;
    if (gap <= NEAR * extent && !isOwn) chosen.add(i);
  });
  const others = areas.filter((area, i) => {
    return allowed[i] && !chosen.has(i) && sizes[i] >= LIKE * extent && area.count >= 0.25 * total;
  });
  return { chosen, others: others.length };
}
