// Prepare a picture as an input, as `gpunn predict` does: gpunn/data/formats/{inputs,photograph,image}.py.
//
// A picture is {width, height, rgba}, with four bytes per pixel. `about` describes the training images:
// {shape: [height, width, channels], ground, is_grey, is_drawn, from_files, drawings, black, white, factor}.

import { border, clipped, mapped, meanOf, median, plane, rounded } from "./arrays.js";
import { areLike, haveStrokesOf, placed } from "./drawings.js";
import { findInk } from "./ink.js";
import { FILTERS, resized } from "./resample.js";

const [FEWEST, MOST] = [320, 800]; // pixels of the longer side for the search of ink
const SEEN = 0.1; // share of the range below which a drawing is invisible on its ground
const LEAST_CONTRAST = 0.04;
const SPARE = 4; // pixels of a picture per pixel of the network after the first scaling
const NOTHING = "nothing is drawn in it";

/** Return {inputs, changes}: the numbers for the network, row by row, and notes on the changes. */
export function prepared(picture, about) {
  const [height, width, channels] = about.shape;
  const changes = [];
  const drawn = drawnAs(picture, about, changes);
  let planes = drawn && [drawn];
  if (!planes && about.from_files) planes = asInTraining(picture, about, changes);
  if (!planes) {
    planes = fittedAs(picture, about, changes);
    if (Math.min(height, width) > 2 && about.is_drawn && !isDrawn(planes)) throw new Error(NOTHING);
  }
  const inputs = new Float32Array(height * width * channels);
  for (let i = 0; i < height * width; i++) {
    for (let c = 0; c < channels; c++) {
      const black = about.black[c % about.black.length];
      const value = planes[c % planes.length].data[i];
      inputs[i * channels + c] = (black + value * (about.white[c % about.white.length] - black)) * about.factor;
    }
  }
  return { inputs, changes };
}

/** Find the drawing and place it as in training; null if the picture is to be fitted as it is. */
function drawnAs(picture, about, changes) {
  const { drawings, from_files: fromFiles } = about;
  if (!drawings || !drawings.are_strokes) return null;
  const [height, width] = about.shape;
  const channels = isGrey(picture) ? 1 : 3; // three equal channels give the same, more slowly
  const planes = onGround(planesOf(picture, MOST / 4, MOST / 4, channels), null);
  const isSameSize = picture.height === height && picture.width === width;
  const grey = meanOf(isSameSize ? planes : fitted(planes, picture, height, width));
  if (areLike(drawings, grey) && (isSameSize || fromFiles || haveStrokesOf(drawings, grey))) return null;
  const found = findInk(enlarged(planes), 3 / channels);
  if (!found) throw new Error(NOTHING);
  const leftOut = found.hadLines ? ["without the ruled lines"] : [];
  if (found.others) leftOut.push(`the largest of ${found.others + 1}: give each in a picture of its own`);
  const without = leftOut.length ? ` (${leftOut.join("; ")})` : "";
  const what = `${found.isDark ? "dark" : "light"} drawing found${without}`;
  changes.push(`${picture.width} × ${picture.height} pixels, ${what}, placed in ${width} × ${height} as in training`);
  return placed(drawings, found.amount, found.drawing, height, width);
}

function isGrey({ rgba }) {
  for (let at = 0; at < rgba.length; at += 4) {
    if (rgba[at] !== rgba[at + 1] || rgba[at] !== rgba[at + 2]) return false;
  }
  return true;
}

/** Scale planes to a size at which strokes are several pixels wide. */
function enlarged(planes) {
  const longer = Math.max(planes[0].height, planes[0].width);
  const scale = Math.min(Math.max(longer, FEWEST), MOST) / longer;
  const [rows, columns] = [planes[0].height, planes[0].width].map((length) => Math.max(1, rounded(length * scale)));
  return planes.map((each) => resized(each, rows, columns, scale < 1 ? FILTERS.box : FILTERS.bicubic));
}

/**
 * Return {pixels, drawn, alpha}: planes of pixels, of pixels times alpha, and of alpha, scaled down by means if large.
 * The last two are empty if nothing is transparent.
 */
function planesOf({ width, height, rgba }, rows, columns, channels) {
  const most = Math.max(1, Math.floor(2 ** 18 / width));
  const times = Math.max(Math.floor(height / rows), Math.floor(width / columns));
  const side = Math.max(1, Math.min(Math.floor(times / SPARE), most));
  const make = () => plane(Math.ceil(height / side), Math.ceil(width / side));
  if (side === 1 && isOpaque(rgba)) {
    const pixels = Array.from({ length: channels }, make);
    for (let i = 0; i < width * height; i++) {
      for (let c = 0; c < channels; c++) {
        pixels[c].data[i] = (channels === 1 ? greyOf(rgba, 4 * i) : rgba[4 * i + c]) / 255;
      }
    }
    return { pixels, drawn: [], alpha: plane(0, 0) };
  }
  const [pixels, drawn, alpha] = [[], [], make()];
  for (let c = 0; c < channels; c++) {
    pixels.push(make());
    drawn.push(make());
  }
  const sums = new Float64Array(2 * channels + 1);
  for (let y = 0; y < alpha.height; y++) {
    for (let x = 0; x < alpha.width; x++) {
      sums.fill(0);
      const [bottom, right] = [Math.min(height, (y + 1) * side), Math.min(width, (x + 1) * side)];
      for (let row = y * side; row < bottom; row++) {
        for (let column = x * side; column < right; column++) {
          const at = 4 * (row * width + column);
          const opaque = rgba[at + 3] / 255;
          for (let c = 0; c < channels; c++) {
            const value = channels === 1 ? greyOf(rgba, at) : rgba[at + c];
            sums[c] += value;
            sums[channels + c] += value * opaque;
          }
          sums[2 * channels] += opaque;
        }
      }
      const [at, count] = [y * alpha.width + x, (bottom - y * side) * (right - x * side)];
      for (let c = 0; c < channels; c++) {
        pixels[c].data[at] = sums[c] / count / 255;
        drawn[c].data[at] = sums[channels + c] / count / 255;
      }
      alpha.data[at] = sums[2 * channels] / count;
    }
  }
  return { pixels, drawn, alpha };
}

function isOpaque(rgba) {
  for (let at = 3; at < rgba.length; at += 4) if (rgba[at] !== 255) return false;
  return true;
}

/** Return the grey of a pixel, in whole numbers as Pillow computes it. */
const greyOf = (rgba, at) => (rgba[at] * 19595 + rgba[at + 1] * 38470 + rgba[at + 2] * 7471 + 0x8000) >> 16;

function range(values) {
  let [low, high] = [Infinity, -Infinity];
  for (const value of values) [low, high] = [Math.min(low, value), Math.max(high, value)];
  return high - low;
}

/** Lay a picture on white, or on its usual ground, unless the drawing would vanish. */
function onGround({ pixels, drawn, alpha }, ground) {
  if (!alpha.data.length || range(alpha.data) < 1 / 512) return pixels;
  const onWhite = drawn.map((each) => mapped(each, (value, i) => value + 1 - alpha.data[i]));
  const [ofWhite, ofBlack] = [onWhite, drawn].map((planes) => range(meanOf(planes).data));
  const isSeen = ofBlack >= SEEN && (ground === "dark" || ofWhite < SEEN);
  return (ground === null ? ofBlack > ofWhite + SEEN : isSeen) ? drawn : onWhite;
}

function fittedSize(size, height, width) {
  const scale = Math.min(height / size.height, width / size.width);
  return [size.height, size.width].map((length) => Math.max(1, rounded(length * scale)));
}

/** Scale planes to fit, proportions kept, into the middle of a field of their border's colour. */
function fitted(planes, size, height, width) {
  const [rows, columns] = fittedSize(size, height, width);
  const filter = rows < size.height || columns < size.width ? FILTERS.box : FILTERS.bilinear;
  return planes.map((each) => {
    const field = plane(height, width).data.fill(median(border(each)));
    lay(field, width, resized(each, rows, columns, filter), height);
    return mapped(plane(height, width, field), (value) => clipped(value, 0, 1));
  });
}

function lay(field, width, small, height) {
  const [top, left] = [Math.floor((height - small.height) / 2), Math.floor((width - small.width) / 2)];
  for (let y = 0; y < small.height; y++) {
    field.set(small.data.subarray(y * small.width, (y + 1) * small.width), (top + y) * width + left);
  }
}

/** Fit the whole picture, and invert it if its ground is not that of the training. */
function fittedAs(picture, about, changes) {
  const [height, width, channels] = about.shape;
  const isPlain = channels === 1 || about.is_grey;
  let planes = onGround(planesOf(picture, height, width, isPlain ? 1 : channels), isPlain ? null : about.ground);
  const grounds = planes.map((each) => median(border(each)));
  const isLight = grounds.reduce((sum, value) => sum + value, 0) / grounds.length > 0.5;
  if (picture.height !== height || picture.width !== width) {
    changes.push(`${picture.width} × ${picture.height} pixels, fitted into ${width} × ${height}`);
    planes = fitted(planes, picture, height, width);
  }
  if (about.ground === "dark" ? isLight : !isLight && about.ground === "light") {
    const background = isLight ? "light background" : "dark background, in training it was light";
    changes.push(`${background}, so dark and light are exchanged`);
    planes = planes.map((each) => mapped(each, (value) => 1 - value));
  }
  return planes;
}

/** Read a picture as bytes, like the training images of a folder; null if it is to be inverted. */
function asInTraining(picture, about, changes) {
  const [height, width, channels] = about.shape;
  const count = picture.width * picture.height;
  const bytes = Array.from({ length: channels }, () => plane(picture.height, picture.width, new Uint8Array(count)));
  for (let i = 0; i < count; i++) {
    for (let c = 0; c < channels; c++) {
      bytes[c].data[i] = channels === 1 ? greyOf(picture.rgba, 4 * i) : picture.rgba[4 * i + c];
    }
  }
  let planes;
  if (isOpaque(picture.rgba)) {
    const [rows, columns] = fittedSize(picture, height, width);
    const filter = rows < picture.height || columns < picture.width ? FILTERS.box : FILTERS.bilinear;
    planes = bytes.map((each) => {
      const small = resized(each, rows, columns, filter);
      const field = new Uint8Array(height * width).fill(rounded(median(border(small))));
      lay(field, width, small, height);
      return plane(height, width, Float32Array.from(field, (value) => value / 255));
    });
  } else {
    planes = onGround(planesOf(picture, height, width, channels), null);
    const isSameSize = picture.height === height && picture.width === width;
    planes = isSameSize ? planes : fitted(planes, picture, height, width);
    planes = planes.map((each) => mapped(each, (value) => rounded(255 * value) / 255));
  }
  if (about.is_grey && about.is_drawn) {
    const isLight = median(planes.flatMap((each) => Array.from(border(each)))) > 0.5;
    if (about.ground === (isLight ? "dark" : "light") || !isDrawn(planes)) return null;
  }
  if (picture.height !== height || picture.width !== width) {
    changes.push(`${picture.width} × ${picture.height} pixels, fitted into ${width} × ${height}`);
  }
  return planes;
}

/** Return whether more than one pixel differs from the ground. */
function isDrawn(planes) {
  const grounds = planes.map((each) => median(border(each)));
  let departs = 0;
  for (let i = 0; i < planes[0].data.length; i++) {
    if (planes.some((each, c) => Math.abs(each.data[i] - grounds[c]) >= LEAST_CONTRAST)) departs += 1;
  }
  return departs > 1;
}
