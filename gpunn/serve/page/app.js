// Run the page: ask the engine about the network and every input, and show the answers.

import { Answers } from "./answers.js";
import { Asker } from "./asker.js";
import { enlarge, pixels } from "./colours.js";
import { Curves } from "./curves.js";
import { $, number, percent, throttled, whole } from "./dom.js";
import { Fields } from "./fields.js";
import { drawConfusion, Mistakes } from "./gallery.js";
import { Layers } from "./layers.js";
import { Pad } from "./pad.js";
import { UnitPanel } from "./unit.js";

const STATES = { training: "is being trained", finished: "finished", stopped: "stopped" };

class Page {
  constructor(engine, model) {
    Object.assign(this, { engine, model, answer: null, input: null, samples: 1 });
    this.answers = new Answers(model);
    this.layers = new Layers(model, (layer, unit) => this.unit.show(layer, unit));
    this.asker = new Asker((input, signal) => this.ask(input, signal), (answer, input) => this.show(answer, input), (error) => this.fail(error));
    const shared = { predicted: (image, words) => this.predict({ pixels: image.data }, words, true), failed: (error) => this.fail(error) };
    this.unit = new UnitPanel(engine, this.layers, shared);
    this.mistakes = new Mistakes(engine, shared);
    this.introduce(model);
    this.offerInputs();
    this.renew = throttled(() => this.renewed(), 300);
    this.renewResults = throttled(() => this.showResults(), 5000); // results need a pass over all samples
    engine.range = model.input; // range of the numbers in pictures
  }

  get hasSamples() {
    return this.engine.has.sample && this.model.has_samples !== false;
  }

  /** Describe the network in the head of the page. */
  introduce(model) {
    this.model = model;
    document.title = `${model.name} · gpunn`;
    $("name").textContent = model.name;
    const parameters = model.parameters ?? model.layers.reduce((sum, layer) => sum + (layer.parameters ?? 0), 0);
    const facts = [model.recipe && model.data ? `${model.recipe}, trained on ${model.data}` : model.recipe || model.data, `${whole(parameters)} parameters`];
    if (model.classes?.length) facts.push(`${whole(model.classes.length)} classes`);
    if (Number.isFinite(model.accuracy)) facts.push(`accuracy ${(100 * model.accuracy).toFixed(2)}\u00a0%`);
    $("facts").textContent = facts.filter(Boolean).join(" · ");
    $("state").hidden = !model.state;
    $("state").textContent = STATES[model.state] ?? model.state ?? "";
    $("state").dataset.state = model.state ?? "";
  }

  offerInputs() {
    const { has } = this.engine;
    const { kind, shape } = this.model.input;
    const isImage = kind === "image";
    const takesPictures = isImage && this.model.input.takes_pictures !== false;
    const isGrey = takesPictures && (shape[2] ?? 1) === 1;
    $("try-title").textContent = isGrey ? "Draw" : isImage ? "Choose a picture" : "Set its inputs";
    $("seen").hidden = !isImage;
    $("answer-title").textContent = this.model.task === "reconstruction" ? "Reconstruction" : "Prediction";
    $("sample").hidden = !this.hasSamples;
    $("sample").addEventListener("click", () => this.sample());
    if (isGrey) this.offerPad();
    if (takesPictures && has.upload) this.offerUpload(isGrey);
    if (!isImage) {
      $("fields").hidden = false;
      this.fields = new Fields(this.model, (input) => this.predict(input, ""));
      $("means").hidden = !this.fields.canReset;
      $("means").addEventListener("click", () => this.fields.reset());
    }
  }

  offerPad() {
    for (const id of ["pad", "keys", "undo", "clear", "pen-width"]) $(id).hidden = false;
    this.pad = new Pad($("pad"), {
      changed: () => {
        $("invitation").hidden = !this.pad.isEmpty;
        if (this.pad.isEmpty) this.forget();
        else this.predict({ drawing: true }, "");
      },
      told: (words) => ($("pen").textContent = words),
    });
    $("undo").addEventListener("click", () => this.pad.undo());
    $("clear").addEventListener("click", () => (this.pad.isEmpty ? this.forget() : this.pad.clear()));
    $("width").addEventListener("input", (event) => {
      this.pad.width = event.target.valueAsNumber;
      this.pad.drawCursor();
    });
  }

  offerUpload(hasPad) {
    $("drop").hidden = hasPad;
    $("open").hidden = false;
    const take = (file) => file && this.predict({ file }, `Your picture ${file.name ?? ""}`, true);
    $("open").addEventListener("click", () => $("file").click());
    $("file").addEventListener("change", (event) => {
      take(event.target.files[0]);
      event.target.value = ""; // so that the same file can be chosen again
    });
    const input = document.querySelector(".input");
    for (const name of ["dragenter", "dragover"]) {
      addEventListener(name, (event) => {
        event.preventDefault();
        input.classList.add("is-over");
      });
    }
    addEventListener("dragleave", (event) => event.relatedTarget === null && input.classList.remove("is-over"));
    addEventListener("drop", (event) => {
      event.preventDefault();
      input.classList.remove("is-over");
      take(event.dataTransfer.files[0]);
    });
    addEventListener("paste", (event) => take([...event.clipboardData.files][0]));
  }

  /** Predict an input; `words` describe its source, and an input from elsewhere clears the pad. */
  predict(input, words, elsewhere = false) {
    if (elsewhere && this.pad && !this.pad.isEmpty) {
      this.pad.strokes = [];
      this.pad.redraw();
    }
    if (this.pad) $("invitation").hidden = !this.pad.isEmpty;
    this.input = input;
    $("source").textContent = words;
    this.asker.ask(input);
    if (elsewhere) $("try").scrollIntoView({ block: "nearest" });
  }

  ask(input, signal) {
    return this.engine.predict(input.drawing ? { canvas: this.pad.picture() } : input, signal);
  }

  show(answer, input) {
    if (input !== this.input && !input.drawing) return;
    if (this.model.task === "reconstruction" && !answer.reconstruction) {
      const last = answer.layers.at(-1).activations;
      answer.reconstruction = { shape: answer.prepared.shape, data: last.data };
    }
    this.answer = answer;
    $("error").hidden = true;
    if (this.model.input.kind === "image") this.showPrepared(answer);
    this.answers.show(answer);
    this.layers.show(answer);
    this.unit.update(answer);
    if (Number.isFinite(answer.milliseconds)) $("time").textContent = `answered in ${number(answer.milliseconds, 2)} ms`;
  }

  showPrepared({ prepared, changes }) {
    enlarge($("prepared"), pixels(prepared, this.model.input), innerWidth > 640 ? 200 : 112);
    const [height, width, channels] = prepared.shape;
    $("prepared-shape").textContent = `${height} × ${width}${(channels ?? 1) > 1 ? ` × ${channels}` : ""} numbers`;
    const words = changes?.length ? changes : [];
    $("changes").replaceChildren(...words.map((each) => Object.assign(document.createElement("li"), { textContent: each })));
  }

  /** Clear the answer, since nothing is drawn. */
  forget() {
    this.asker.cancel();
    this.input = null;
    this.answers.clear();
    $("source").textContent = "";
  }

  async sample(at = null) {
    const set = this.model.has_test ? "test" : "validation";
    try {
      const found = await this.engine.sample(set, at ?? Math.floor(Math.random() * this.samples));
      this.samples = found.of ?? this.samples;
      if (at !== null && this.input) return; // the user has begun, and needs no first sample
      const index = found.index ?? at;
      const label = found.label === null || found.label === undefined || found.label === "" ? "" : `: true answer ${found.label}`;
      const words = `Sample${index === null || index === undefined ? "" : ` ${index}`} of the ${set} set${label}`;
      this.fields?.set(found.pixels.data);
      this.predict({ pixels: found.pixels.data }, words, at === null);
    } catch (error) {
      this.fail(error);
    }
  }

  fail(error) {
    $("error").hidden = false;
    $("error").textContent = error.message;
  }

  /** Ask again, since the network has learned more. */
  renewed() {
    if (this.input) this.asker.ask(this.input);
    this.unit.ask();
    this.renewResults();
  }

  async changeState(state) {
    if (state === this.model.state) return;
    try {
      this.introduce(await this.engine.model());
      await this.curves.load();
      this.renew();
    } catch (error) {
      this.fail(error);
    }
  }

  /** Show whether the server answers. */
  connected(is) {
    $("state").hidden = false;
    $("state").dataset.state = is ? this.model.state : "gone";
    $("state").textContent = is ? STATES[this.model.state] ?? this.model.state : "no answer from gpunn serve; trying again …";
  }

  async showResults() {
    if (this.model.task !== "classification" || !this.hasSamples) return;
    const { has } = this.engine;
    if (has.mistakes && this.model.input.kind === "image") await this.mistakes.start();
    if (!has.confusion) return;
    try {
      drawConfusion(await this.engine.confusion());
    } catch (error) {
      $("confusion-note").textContent = error.message;
    }
    $("confusion").hidden = false;
  }

  async start() {
    $("main").hidden = false;
    if (this.fields && !(this.hasSamples && this.fields.fields[0].isText)) this.fields.tell();
    else if (this.hasSamples) await this.sample(0);
    if (this.engine.has.history) {
      if (this.model.state === "training") $("try").before($("training"));
      const heard = { renewed: this.renew, changed: (state) => this.changeState(state), connected: (is) => this.connected(is) };
      this.curves = new Curves(this.engine, { ...heard, failed: (error) => this.fail(error) });
      await this.curves.start();
    }
    await this.showResults();
  }
}

function switchTheme() {
  const root = document.documentElement;
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches);
  const write = () => ($("theme").textContent = isDark() ? "Light" : "Dark");
  $("theme").addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    try {
      localStorage.setItem("gpunn-theme", root.dataset.theme);
    } catch {} // then it lasts as long as the page
    write();
    dispatchEvent(new Event("theme"));
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", write);
  write();
}

switchTheme();
try {
  const { openEngine } = await import(document.documentElement.dataset.engine);
  const engine = await openEngine();
  const page = new Page(engine, await engine.model());
  globalThis.gpunn = page; // for the console: gpunn.answer is the answer on the page
  await page.start();
} catch (error) {
  console.error(error);
  $("facts").textContent = "";
  $("error").hidden = false;
  $("error").textContent = error.message;
}
