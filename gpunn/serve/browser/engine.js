// Answer a static page by running the network, an ONNX file beside it, in the browser with onnxruntime-web.
//
// The methods are those of page/engine-server.js. The files are written by `gpunn export --page`: network/network.json,
// network/model.onnx (with the outputs of the network, then of each layer) and network/samples.bin.

import * as ort from "../../runtime/ort.wasm.bundle.min.mjs";
import { decoded } from "../picture.js";
import { prepared } from "./prepare.js";

const WORKER = new URL("./worker.js", import.meta.url);
const ROOT = new URL("../../", import.meta.url);
const WARM_UPS = 4;
const LARGE = 800; // pixels of a side, from which gpunn may decode a picture at a smaller size
const DECODED = "decoded by this browser: gpunn predict may see a large photograph a little differently";

export async function openEngine() {
  ort.env.wasm.numThreads = 1; // more threads need headers that few web servers send
  ort.env.wasm.wasmPaths = { wasm: new URL("runtime/ort-wasm-simd-threaded.wasm", ROOT).href };
  ort.env.logLevel = "error";
  const about = await fetched("network/network.json").then((answer) => answer.json());
  const [network, samples] = await Promise.all(
    ["network/model.onnx", "network/samples.bin"].map(async (name) => (await fetched(name)).arrayBuffer()),
  );
  let session;
  try {
    session = await ort.InferenceSession.create(new Uint8Array(network), { executionProviders: ["wasm"] });
  } catch (error) {
    throw new Error(`The network cannot be run in this browser: ${error.message}`);
  }
  const made = new Network(about, session, network, samples);
  made.preparing = preparer(about.picture);
  return made;
}

async function fetched(name) {
  let answer;
  try {
    answer = await fetch(new URL(name, ROOT));
  } catch {
    throw new Error(`${name} cannot be loaded: is the web server still there?`);
  }
  if (!answer.ok) throw new Error(`${name} is missing (status ${answer.status}): copy the folder whole.`);
  return answer;
}

/** Return a function that prepares pictures in a worker, so that drawing stays smooth, or without workers in the page. */
function preparer(told) {
  const waiting = [];
  let worker = null;
  const here = (picture, about) => {
    try {
      return prepared(picture, about);
    } catch (error) {
      return { error: error.message };
    }
  };
  try {
    worker = new Worker(WORKER, { type: "module" });
    worker.onmessage = ({ data }) => waiting.shift().answered(data);
    worker.onerror = (event) => {
      event.preventDefault();
      worker = null;
      for (const { picture, about, answered } of waiting.splice(0)) answered(here(picture, about));
    };
    // Run the code until the browser has optimized it, before the first drawing.
    if (told?.drawings) for (let time = 0; time < WARM_UPS; time++) worker.postMessage({ picture: line(), about: told, isLost: true });
  } catch {} // without workers
  return (picture, about) => {
    if (!worker) return here(picture, about);
    return new Promise((answered) => {
      waiting.push({ picture, about, answered });
      worker.postMessage({ picture, about });
    });
  };
}

/** Draw a line. */
function line() {
  const rgba = new Uint8ClampedArray(4 * 280 * 280).fill(255);
  for (let y = 60; y < 220; y++) for (let x = 130; x < 150; x++) rgba.fill(0, 4 * (280 * y + x), 4 * (280 * y + x) + 3);
  return { width: 280, height: 280, rgba };
}

class Network {
  constructor(about, session, network, samples) {
    Object.assign(this, { about, session, network, samples, running: Promise.resolve() });
    const { picture, samples: kept, mistakes, confusion, history } = about;
    this.has = {
      upload: picture !== null,
      unit: true,
      sample: kept !== null,
      mistakes: mistakes !== null,
      confusion: confusion !== null,
      history: history !== null,
    };
  }

  async model() {
    return this.about.model;
  }

  async predict(input, signal) {
    const began = performance.now();
    const { inputs, changes } = await this.inputsOf(input);
    const [outputs, layers] = await this.run(inputs, signal);
    return {
      prepared: { shape: this.about.input.shown, data: this.seen(inputs) },
      changes,
      ...this.answers(outputs),
      layers,
      milliseconds: performance.now() - began,
    };
  }

  /** Prepare an input of the page for the network. */
  async inputsOf({ canvas, file, pixels, values }) {
    if (canvas || file) {
      const picture = canvas ? bytesOf(canvas) : await pictureIn(file);
      const found = await this.preparing(picture, this.about.picture);
      if (found.error) throw new Error(`${canvas ? "The drawing" : "The picture"}: ${found.error}`);
      const isLarge = file && Math.max(picture.width, picture.height) >= LARGE;
      return isLarge ? { ...found, changes: [...found.changes, DECODED] } : found;
    }
    const { columns } = this.about.model.input;
    if (values && columns?.length) return rowOf(columns, values);
    const given = Float32Array.from(pixels ?? values, Number);
    const count = sizeOf(this.about.input.shape);
    if (given.length !== count || !given.every(Number.isFinite)) throw new Error(`${count} numbers are expected`);
    // Pixels have the factor already, and the graph applies it again.
    return { inputs: given.map((value) => value / (pixels ? this.about.input.factor : 1)), changes: [] };
  }

  /** Return the numbers that the network sees, an input times its factor. */
  seen(inputs) {
    const factor = Math.fround(this.about.input.factor);
    return factor === 1 ? inputs : inputs.map((value) => value * factor);
  }

  /** Run the network on one sample, one run at a time and none for an aborted request; return [outputs, layers]. */
  run(inputs, signal) {
    const answer = this.running.then(async () => {
      signal?.throwIfAborted();
      const { kind, shape } = this.about.input;
      const data = kind === "int64" ? BigInt64Array.from(inputs, (value) => BigInt(Math.round(value))) : inputs;
      const found = await this.session.run({ input: new ort.Tensor(kind, data, [1, ...shape]) });
      const layers = this.about.layers.map(({ output, shown }, index) => {
        const { dims, data: numbers } = found[output];
        return { index, activations: firstOf({ shape: dims.slice(1), data: Float32Array.from(numbers) }, shown) };
      });
      return [Float32Array.from(found[this.about.output].data), layers];
    });
    this.running = answer.catch(() => {});
    return answer;
  }

  /** Describe the outputs for one sample as answers of the task. */
  answers(outputs) {
    const { task, classes, targets, sure } = this.about.model;
    if (task === "classification") {
      const isOne = outputs.length < Math.min(classes.length, 2); // of class 1 alone
      const shares = isOne ? [1 - outputs[0], outputs[0]] : Array.from(outputs);
      const at = isOne ? Number(outputs[0] >= 0.5) : shares.indexOf(Math.max(...shares));
      const answers = classes.map((name, number) => ({ name, probability: shares[number] }));
      return { answers, best: { name: classes[at], probability: shares[at], sure: shares[at] >= sure } };
    }
    if (task === "binary") {
      const answerOf = (name, at) => ({ name, probability: outputs[at], value: Number(outputs[at] >= 0.5) });
      return { answers: targets.map(answerOf), best: null };
    }
    if (task === "reconstruction") {
      const shape = this.about.input.shown;
      return { answers: [], best: null, reconstruction: { shape, data: channelsLast(outputs, shape) } };
    }
    const values = targets.map((name, at) => ({ name, value: outputs[at], unit: "" }));
    return { answers: [], best: null, values };
  }

  async unit(layer, unit) {
    const { weights, bias, turned } = this.about.units[this.about.model.layers[layer].weights_of] ?? {};
    const { largest } = this.about.layers[layer];
    return {
      weights: weights ? this.weightsOf(weights, turned, unit) : null,
      bias: bias ? numbersAt(this[bias.file], bias.at + 4 * unit, 1)[0] : null,
      images: largest ? this.largestOf(largest, unit) : [],
      of: this.about.samples?.count,
    };
  }

  /** Read the weights of a unit from the file that has them. */
  weightsOf({ file, at, shape }, isTurned, unit) {
    const [, ...own] = shape;
    const count = sizeOf(own);
    const data = numbersAt(this[file], at + 4 * unit * count, count);
    if (!isTurned) return { shape: own, data };
    const [channels, height, width] = own;
    return { shape: [height, width, channels], data: channelsLast(data, [height, width, channels]) };
  }

  /** Return the samples that activate a unit most. */
  largestOf({ numbers, values, kept, units }, unit) {
    const places = new Uint16Array(this.samples.slice(numbers, numbers + 2 * kept * units));
    const activations = numbersAt(this.samples, values, kept * units);
    return Array.from({ length: kept }, (_, rank) => {
      return { ...this.kept(places[rank * units + unit]), activation: activations[rank * units + unit] };
    });
  }

  /** Return a packed sample by its place. */
  kept(place) {
    const { at, kind, shape, factor, rows, set } = this.about.samples;
    const count = sizeOf(shape);
    if (kind === "float32") return { ...rows[place], set, pixels: { shape, data: numbersAt(this.samples, at + 4 * place * count, count) } };
    const bytes = new Uint8Array(this.samples, at + place * count, count);
    const scale = Math.fround(factor);
    return { ...rows[place], set, pixels: { shape, data: Float32Array.from(bytes, (byte) => byte * scale) } };
  }

  async sample(set, index) {
    return this.kept(index % this.about.samples.count);
  }

  async mistakes(first, count) {
    const { total, of, rows } = this.about.mistakes;
    const shown = rows.slice(first, first + count).map(({ place, ...row }) => ({ ...this.kept(place), ...row }));
    return { total, of, mistakes: shown };
  }

  async confusion() {
    return this.about.confusion;
  }

  async history() {
    return this.about.history;
  }

  watch() {
    return () => {};
  }
}

/** Return how many numbers an array of a shape has. */
const sizeOf = (shape) => shape.reduce((product, each) => product * each, 1);

/** Copy numbers out of a file, where they may be unaligned. */
function numbersAt(buffer, at, count) {
  return new Float32Array(buffer.slice(at, at + 4 * count));
}

/** Return the first units of a layer's output. */
function firstOf({ shape, data }, count) {
  const units = shape[shape.length - 1];
  if (count === units) return { shape, data };
  const places = data.length / units;
  const out = new Float32Array(places * count);
  for (let at = 0; at < places; at++) out.set(data.subarray(at * units, at * units + count), at * count);
  return { shape: [...shape.slice(0, -1), count], data: out };
}

/** Reorder numbers from channel, row, column to row, column, channel. */
function channelsLast(data, [height, width, channels]) {
  const out = new Float32Array(data.length);
  const size = height * width;
  for (let at = 0; at < size; at++) for (let c = 0; c < channels; c++) out[at * channels + c] = data[c * size + at];
  return out;
}

/** Return the features of values by column: standardised numbers, and one-hot categories. */
function rowOf(columns, values) {
  const features = [];
  const missing = [];
  for (const { name, kind, categories, usual, mean, deviation } of columns) {
    const isMissing = values[name] === undefined || values[name] === null || values[name] === "";
    if (isMissing) missing.push(name);
    if (kind === "category") {
      const at = categories.indexOf(String(isMissing ? usual : values[name]));
      if (at < 0) throw new Error(`${name} is none of ${categories.join(", ")}`);
      features.push(...categories.map((_, number) => Number(number === at)));
      continue;
    }
    const number = isMissing ? mean : Number(values[name]);
    if (!Number.isFinite(number)) throw new Error(`${name} is no number`);
    features.push((number - mean) / deviation);
  }
  const changes = missing.length ? [`missing, so the mean was taken: ${missing.join(", ")}`] : [];
  return { inputs: Float32Array.from(features), changes };
}

function bytesOf(canvas) {
  const { width, height } = canvas;
  return { width, height, rgba: canvas.getContext("2d", { willReadFrequently: true }).getImageData(0, 0, width, height).data };
}

/** Return the pixels of a picture file, rotated by its EXIF orientation. */
async function pictureIn(file) {
  const { bitmap, canvas } = await decoded(file, { imageOrientation: "from-image", colorSpaceConversion: "none" });
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  return bytesOf(canvas);
}
