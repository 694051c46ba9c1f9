// Place a drawing as those of the training images are: gpunn/data/drawings.py in the browser.

import { border, clipped, cropped, largest, mapped, median, padded, plane, rounded } from "./arrays.js";
import { extremes } from "./areas.js";
import { FILTERS, resized } from "./resample.js";

const FAINT = 0.02; // of the darkest ink, the edge of a drawing
const OFF_SIZE = 1.5;
const OFF_MIDDLE = 1.0; // largest difference in pixels of the centres of similar drawings
const BLURRED = 1.3; // factor by which resizing may widen or narrow strokes
const CANVAS = 160; // least pixels of the box while strokes are changed

/** Return the ground of a plane, the median of its border, and the differences of the pixels from it. */
function departures(image) {
  const ground = median(border(image));
  return { ground, departs: mapped(image, (value) => value - ground) };
}

/** Return the bounding box of ink; the whole plane if there is none. */
export function boxOf({ data, height, width }, least = FAINT) {
  let [top, left, bottom, right] = [height, width, 0, 0];
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      if (data[y * width + x] > least) {
        top = Math.min(top, y);
        left = Math.min(left, x);
        bottom = y + 1;
        right = Math.max(right, x + 1);
      }
    }
  }
  return bottom ? { top, left, bottom, right } : { top: 0, left: 0, bottom: height, right: width };
}

/** Return the centre of mass, row and column, in pixels from the top left corner. */
function centreOfMass({ data, height, width }) {
  let [total, down, across] = [0, 0, 0];
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const ink = data[y * width + x];
      total += ink;
      down += ink * (y + 0.5);
      across += ink * (x + 0.5);
    }
  }
  total = Math.max(total, 1e-12);
  return [down / total, across / total];
}

/** Return the mean width of strokes: twice the area over the outline's length. */
function strokeWidth(ink) {
  const { data, height, width } = padded(ink, 1);
  let [area, outline] = [0, 0];
  for (const value of ink.data) area += value;
  for (let y = 0; y < height - 1; y++) {
    for (let x = 0; x < width - 1; x++) {
      const at = y * width + x;
      outline += Math.hypot(data[at + width] - data[at], data[at + 1] - data[at]);
    }
  }
  return (2 * area) / Math.max(outline, 1e-12);
}

function drawnInk(image) {
  const { ground, departs } = departures(image);
  const peak = largest(departs);
  return { ground, peak, ink: mapped(departs, (value) => Math.abs(value) / Math.max(peak, 1e-12)) };
}

/** Return whether an image has the contrast, box and centre of the training images. */
export function areLike(drawings, image) {
  const { ground, peak, ink } = drawnInk(image);
  const isSame = Math.min(Math.abs(ground - drawings.ground), Math.abs(1 - ground - drawings.ground)) <= 0.1;
  if (!isSame || peak < 0.85 * Math.abs(drawings.ink - drawings.ground)) return false;
  const box = boxOf(ink);
  const middle = drawings.is_by_mass ? centreOfMass(ink) : [(box.top + box.bottom) / 2, (box.left + box.right) / 2];
  const size = Math.max(box.bottom - box.top, box.right - box.left);
  const off = Math.max(...middle.map((each, axis) => Math.abs(each - drawings.centre[axis])));
  return Math.abs(size - drawings.box) <= OFF_SIZE && off <= OFF_MIDDLE;
}

/** Return whether the strokes of an image are about as wide as those of the training. */
export function haveStrokesOf(drawings, image) {
  const width = strokeWidth(drawnInk(image).ink);
  return drawings.thinnest / BLURRED <= width && width <= drawings.thickest * BLURRED;
}

/** Dilate a mask by one pixel. */
function around({ data, height, width }) {
  const wide = new Uint8Array(data.length);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      if (!data[y * width + x]) continue;
      for (let row = Math.max(0, y - 1); row < Math.min(height, y + 2); row++) {
        wide.fill(1, row * width + Math.max(0, x - 1), row * width + Math.min(width, x + 2));
      }
    }
  }
  return plane(height, width, wide);
}

/** Cut out the drawing, enlarged, with ink 1, ground 0, and soft edges. */
function canvasOf(drawings, amount, drawing) {
  const { top, left, bottom, right } = boxOf(drawing);
  const size = Math.max(bottom - top, right - left);
  const scale = Math.max(8, Math.ceil(CANVAS / drawings.box));
  const times = (scale * drawings.box) / size;
  const margin = Math.ceil(size * 0.1) + 1;
  let region = drawing;
  for (let i = 0; i < Math.max(1, rounded(size / 80)); i++) region = around(region);
  const inked = mapped(amount, (value, i) => (region.data[i] ? value : 0));
  const ink = cropped(padded(inked, margin), top, left, bottom + 2 * margin, right + 2 * margin);
  const [rows, columns] = [ink.height, ink.width].map((length) => Math.max(1, rounded(length * times)));
  const large = resized(ink, rows, columns, times < 1 ? FILTERS.box : FILTERS.bicubic);
  return { canvas: mapped(large, (value) => clipped((value - 0.25) / 0.4, 0, 1)), scale };
}

function inPlace(drawings, canvas, height, width) {
  const { top, left, bottom, right } = boxOf(canvas, 0.5);
  const times = drawings.box / Math.max(bottom - top, right - left);
  const [rows, columns] = [bottom - top, right - left].map((length) => Math.max(1, rounded(length * times)));
  const small = resized(cropped(canvas, top, left, bottom, right), rows, columns, FILTERS.box);
  const middle = drawings.is_by_mass ? centreOfMass(small) : [rows / 2, columns / 2];
  const [y, x] = drawings.centre.map((place, axis) => {
    const room = axis ? width - columns : height - rows;
    return clipped(rounded(place - middle[axis]), 0, Math.max(0, room));
  });
  const out = plane(height, width);
  for (let row = 0; row < Math.min(rows, height - y); row++) {
    for (let column = 0; column < Math.min(columns, width - x); column++) {
      out.data[(y + row) * width + x + column] = small.data[row * columns + column];
    }
  }
  return out;
}

/** Thicken strokes by `by` pixels on each side, or thin them if it is below 0. */
function grown(ink, by) {
  const reach = rounded(Math.abs(by));
  if (!reach) return ink;
  const base = by > 0 ? padded(ink, reach) : ink;
  const { height, width } = base;
  const out = plane(height, width, base.data.slice());
  const take = by > 0 ? Math.max : Math.min;
  for (let down = 0; down <= reach; down++) {
    const wide = extremes(base, 2 * Math.floor(Math.sqrt(reach * reach - down * down)) + 1, by < 0).data;
    for (const shift of down ? [down, -down] : [0]) {
      for (let y = 0; y < height; y++) {
        const isInside = y + shift >= 0 && y + shift < height;
        const from = (y + shift) * width;
        for (let x = 0; x < width; x++) {
          out.data[y * width + x] = take(out.data[y * width + x], isInside ? wide[from + x] : 0);
        }
      }
    }
  }
  return out;
}

/** Place ink, 0 to about 1, in an image (height, width) with the box and centre of the training images. */
export function placed(drawings, amount, drawing, height, width) {
  const { canvas, scale } = canvasOf(drawings, amount, drawing);
  let found = inPlace(drawings, canvas, height, width);
  const stroke = strokeWidth(found);
  if (!(drawings.thinnest <= stroke && stroke <= drawings.thickest)) {
    const wanted = stroke < drawings.thinnest ? drawings.thinnest : drawings.thickest;
    found = inPlace(drawings, grown(canvas, ((wanted - stroke) / 2) * scale), height, width);
  }
  return mapped(found, (value) => drawings.ground + value * (drawings.ink - drawings.ground));
}
