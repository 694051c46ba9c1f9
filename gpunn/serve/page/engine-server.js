// Answer the page of `gpunn serve` by requests to its server.
//
// An engine is an object with the methods below. A static page (gpunn export --page) names another module in
// <html data-engine="…">, which exports `openEngine` too. Methods that `has` sets to false are never called.
// Arrays are {shape, data: Float32Array}; images (height, width, channels), channels last.

import { decoded } from "./picture.js";

const MOST_BYTES = 8 << 20; // of a picture that the server reads
const READ = ["image/png", "image/jpeg", "image/webp", "image/bmp", "image/gif"];

export async function openEngine() {
  return new Server();
}

class Server {
  has = { upload: true, unit: true, sample: true, mistakes: true, confusion: true, history: true };

  /** Describe the network: {name, task, input, classes, layers, state, …}. */
  model() {
    return ask("api/model");
  }

  /**
   * Predict one input: {canvas} dark on white, {file} a picture, {pixels} of a prepared input, or {values} by column.
   * Answer {prepared, changes, answers, best, values?, layers: [{index, activations}], milliseconds}.
   */
  async predict(input, signal) {
    let type = "application/json";
    let body;
    if (input.canvas) [type, body] = ["image/png", pngOf(input.canvas)];
    else if (input.file) [type, body] = await pictureOf(input.file);
    else if (input.pixels) body = JSON.stringify({ pixels: Array.from(input.pixels) });
    else body = JSON.stringify({ values: input.values });
    return ask("api/predict", { method: "POST", headers: { "Content-Type": type }, body, signal });
  }

  /** Describe a unit: {weights, bias, images: [{index, set, label, activation, pixels}]}. */
  unit(layer, unit, signal) {
    return ask(`api/unit?layer=${layer}&unit=${unit}`, { signal });
  }

  /** Return a sample of "validation" or "test": {pixels, label}. */
  sample(set, index) {
    return ask(`api/sample?set=${set}&index=${index}`);
  }

  /** Return mistakes, lowest probability of the true class first: {total, of, mistakes: [{index, true, predicted, probability, pixels}]}. */
  mistakes(first, count) {
    return ask(`api/mistakes?first=${first}&count=${count}`);
  }

  /** Return the confusion matrix: {classes, counts}. */
  confusion() {
    return ask("api/confusion");
  }

  /** Return the history: {columns, rows}. */
  history() {
    return ask("api/history");
  }

  /**
   * Follow a training after the step `last`: its records, its state, a history that starts anew (reset), a newer
   * network (renewed), and whether the server answers (connected). Return a function that stops following.
   */
  watch({ record, state, reset, renewed, connected }, last = null) {
    let source;
    let timer;
    const open = () => {
      source = new EventSource(last === null ? "api/events" : `api/events?last=${last}`);
      source.addEventListener("reset", () => reset());
      source.addEventListener("model", () => renewed());
      source.addEventListener("open", () => connected(true));
      source.addEventListener("record", (event) => record(JSON.parse(event.data)));
      source.addEventListener("state", (event) => state(JSON.parse(event.data)));
      source.addEventListener("error", () => {
        connected(false);
        if (source.readyState === EventSource.CLOSED) timer = setTimeout(open, 1000); // after a 5xx it does not reconnect by itself
      });
    };
    open();
    return () => {
      clearTimeout(timer);
      source.close();
    };
  }
}

async function ask(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server does not answer. Is gpunn serve still running?");
  }
  let found;
  try {
    found = await answer.json();
  } catch {
    throw new Error(`The server answered with something that is no JSON (status ${answer.status}).`);
  }
  if (!answer.ok) throw new Error(found.error ?? `The server refused (status ${answer.status}).`);
  return withArrays(found);
}

/** Replace every {shape, data: base64} by {shape, data: Float32Array}. */
function withArrays(value) {
  if (Array.isArray(value)) {
    return typeof value[0] === "object" ? value.map(withArrays) : value;
  }
  if (value === null || typeof value !== "object") return value;
  if (typeof value.data === "string" && Array.isArray(value.shape)) {
    return { shape: value.shape, data: new Float32Array(bytesOf(value.data).buffer) };
  }
  return Object.fromEntries(Object.entries(value).map(([name, each]) => [name, withArrays(each)]));
}

function bytesOf(base64) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(base64);
  const signs = atob(base64);
  const bytes = new Uint8Array(signs.length);
  for (let at = 0; at < bytes.length; at += 1) bytes[at] = signs.charCodeAt(at);
  return bytes;
}

/** Return a canvas as PNG, at once: toBlob would wait until the browser is idle. */
function pngOf(canvas) {
  return new Blob([bytesOf(canvas.toDataURL("image/png").split(",")[1])], { type: "image/png" });
}

/** Return type and body of a picture: the file itself if the server reads it, else a PNG or JPEG of it. */
async function pictureOf(file) {
  if (READ.includes(file.type) && file.size <= MOST_BYTES) return [file.type, file];
  const { bitmap, canvas } = await decoded(file);
  const context = canvas.getContext("2d");
  context.fillStyle = "#fff"; // behind transparent pixels
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  const png = pngOf(canvas);
  if (png.size <= MOST_BYTES) return ["image/png", png];
  const jpeg = await new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.92));
  return ["image/jpeg", jpeg];
}
