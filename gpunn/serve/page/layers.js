// Show every layer's activations as small maps, in a flow from the input to the answer.

import { colourOf, enlarge, extremes, pixels, rows, sides, tile } from "./colours.js";
import { $, h, number, percent, shortened, whole } from "./dom.js";

const MOST_MAPS = 64; // of a layer
const MOST_CELLS = 2048;
const GAP = 3; // pixels between maps
const KINDS = ["dense", "convolution", "pooling", "activation", "normalization"];

export class Layers {
  /** `chosen(layer, unit)` is called for a unit on a click or Enter. */
  constructor(model, chosen) {
    this.input = new InputCard(model);
    this.output = new OutputCard(model);
    this.cards = model.layers.map((layer, at) => {
      const parent = model.layers.slice(at).find(({ depth }) => (depth ?? 0) < (layer.depth ?? 0)); // the layer around it
      return new Card(layer, parent, model.classes ?? [], (unit) => chosen(layer, unit));
    });
    this.all = [this.input, ...this.cards, this.output];
    $("flow").replaceChildren(...this.all.map(({ root }) => root));
    new ResizeObserver(() => this.cards.forEach((card) => card.fit())).observe($("flow"));
  }

  show(answer) {
    this.input.show(answer);
    this.output.show(answer);
    for (const { index, activations } of answer.layers) this.card(index)?.show(activations);
  }

  card(index) {
    return this.cards.find(({ layer }) => layer.index === index);
  }

  mark(index, unit) {
    for (const card of this.cards) card.mark(card.layer.index === index ? unit : null);
  }
}

/** Show the input at the start of the flow. */
class InputCard {
  constructor({ input }) {
    this.range = input;
    this.canvas = h("canvas", { class: "pixels", "aria-hidden": "true", width: 1, height: 1 });
    this.root = h("li", { class: "card end" }, h("h3", {}, "Input"), h("p", { class: "shape" }, input.shape.map(whole).join(" × ")), this.canvas);
  }

  show({ prepared }) {
    const { shape, data } = prepared;
    if (shape.length === 3) return enlarge(this.canvas, pixels(prepared, this.range), 96);
    const across = data.length <= 12 ? Math.min(6, data.length) : Math.ceil(Math.sqrt(data.length));
    return enlarge(this.canvas, rows(prepared, across, colourOf(extremes(data))), 96);
  }
}

/** Show the answer at its end. */
class OutputCard {
  constructor({ task }) {
    this.task = task;
    this.text = h("p", { class: "end-answer" });
    this.note = h("p", { class: "note" });
    this.canvas = h("canvas", { class: "pixels", "aria-hidden": "true", hidden: true });
    this.root = h("li", { class: "card end" }, h("h3", {}, "Prediction"), this.text, this.canvas, this.note);
  }

  show({ best, values, answers, reconstruction }) {
    this.canvas.hidden = !reconstruction;
    if (best) {
      this.text.textContent = shortened(best.name, 18);
      this.text.classList.toggle("word", best.name.length > 3);
      this.note.textContent = `${percent(best.probability)}${best.sure ? "" : ", not sure"}`;
    } else if (reconstruction) enlarge(this.canvas, pixels(reconstruction), 96);
    else if (values?.length) {
      this.text.textContent = number(values[0].value, 4);
      this.text.classList.add("word");
      this.note.textContent = values.length > 1 ? `and ${values.length - 1} more` : shortened(values[0].name, 18);
    } else this.text.textContent = (answers ?? []).slice(0, 8).map(({ value }) => value).join(" ");
  }
}

/** Show a layer: title, shape, and its maps or units in a canvas. */
class Card {
  constructor(layer, parent, classes, chosen) {
    Object.assign(this, { layer, chosen, activations: null, at: 0, marked: null, hovered: null });
    this.names = classes.length === layer.shape.at(-1) && layer.shape.length === 1 ? classes : [];
    const kind = KINDS.includes(layer.kind) ? layer.kind : "other";
    this.isMap = layer.shape.length === 3 && layer.shape[0] * layer.shape[1] > 1;
    this.units = layer.shape.at(-1);
    this.shown = Math.min(layer.shown ?? this.units, this.isMap ? MOST_MAPS : MOST_CELLS);
    this.option = h("span", { role: "option", id: `unit-of-${layer.index}`, class: "for-readers", "aria-setsize": this.units });
    this.canvas = h("canvas", { "aria-hidden": "true" });
    this.frame = h("div", { class: "frame", role: "listbox", tabindex: 0, "aria-label": this.words(), "aria-activedescendant": this.option.id }, this.canvas, this.option);
    this.note = h("p", { class: "note" });
    this.root = h(
      "li",
      { class: `card ${kind} ${parent ? "inner" : ""}` },
      h("h3", {}, layer.title, parent ? h("small", {}, ` within ${parent.title}`) : null),
      h("p", { class: "shape" }, layer.shape.map(whole).join(" × "), layer.parameters ? ` · ${whole(layer.parameters)} parameters` : ""),
      this.frame,
      this.note,
    );
    const unitAt = (event) => this.unitAt(event);
    this.frame.addEventListener("pointermove", (event) => this.hover(unitAt(event)));
    this.frame.addEventListener("pointerleave", () => this.hover(null));
    this.frame.addEventListener("click", (event) => this.choose(unitAt(event)));
    this.frame.addEventListener("keydown", (event) => this.key(event));
    this.frame.addEventListener("focus", () => this.tell());
    this.frame.addEventListener("blur", () => this.draw());
    this.fit();
    this.tell();
  }

  words() {
    const what = this.isMap ? "maps" : "units";
    return `${this.layer.title}: ${whole(this.units)} ${what}. Arrow keys choose one, Enter shows it.`;
  }

  /** Lay out the units for the available width. */
  fit() {
    const [height, width] = this.isMap ? this.layer.shape : [1, 1];
    const most = Math.max(height, width);
    const cell = this.names.length && this.shown <= 20 ? 26 : this.shown <= 16 ? 20 : this.shown <= 160 ? 11 : this.shown <= 640 ? 6 : 4;
    this.factor = this.isMap ? (most > 40 ? 40 / most : Math.max(1, Math.round(27 / most))) : cell;
    this.gap = this.isMap ? GAP : cell > 5 ? 2 : 1;
    this.tile = [Math.max(1, Math.round(height * this.factor)), Math.max(1, Math.round(width * this.factor))];
    const room = Math.max(60, (this.root.parentElement?.clientWidth || 320) - 26);
    const fitting = Math.max(1, Math.floor((room + this.gap) / (this.tile[1] + this.gap)));
    this.columns = Math.min(fitting, columnsFor(this.shown));
    this.rows = Math.ceil(this.shown / this.columns);
    const ratio = Math.min(3, Math.ceil(devicePixelRatio || 1));
    const [across, down] = [this.columns * (this.tile[1] + this.gap) + this.gap, this.rows * (this.tile[0] + this.gap) + this.gap];
    this.canvas.width = across * ratio;
    this.canvas.height = down * ratio;
    this.canvas.style.width = `${across}px`;
    this.canvas.style.height = `${down}px`;
    this.ratio = ratio;
    this.draw();
  }

  show(activations) {
    this.activations = activations;
    this.scale = extremes(activations.data);
    this.draw();
    this.tell();
  }

  draw() {
    const context = this.canvas.getContext("2d");
    const [tall, wide] = this.tile;
    context.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    context.imageSmoothingEnabled = this.factor < 1;
    const colour = this.activations && colourOf(this.scale);
    const held = this.isMap ? new OffscreenCanvas(this.layer.shape[1], this.layer.shape[0]) : null;
    for (let unit = 0; unit < this.shown; unit += 1) {
      const [x, y] = this.placeOf(unit);
      context.fillStyle = "#d5d8dd"; // around each, on a dark page too
      context.fillRect(x - this.gap, y - this.gap, wide + 2 * this.gap, tall + 2 * this.gap);
      context.fillStyle = "#f7f7f7";
      if (!this.activations) context.fillRect(x, y, wide, tall);
      else if (held) {
        held.getContext("2d").putImageData(tile(this.activations, unit, colour), 0, 0);
        context.drawImage(held, x, y, wide, tall);
      } else {
        const bits = colour(this.activations.data[unit]);
        context.fillStyle = `rgb(${bits & 255} ${(bits >> 8) & 255} ${(bits >> 16) & 255})`;
        context.fillRect(x, y, wide, tall);
        if (isNamed(this.names, unit, wide)) this.write(this.names[unit], x + wide / 2, y + tall / 2, bits);
      }
    }
    const focused = this.frame.matches(":focus-visible") ? this.at : null;
    this.outline(this.marked, "#D55E00", 2);
    this.outline(this.hovered ?? focused, "#009E73", 2);
  }

  /** Write the name of a class into its cell. */
  write(name, x, y, bits) {
    const context = this.canvas.getContext("2d");
    const [r, g, b] = [bits & 255, (bits >> 8) & 255, (bits >> 16) & 255];
    context.fillStyle = 0.299 * r + 0.587 * g + 0.114 * b > 140 ? "#1d2129" : "#fff";
    context.font = "12px system-ui, sans-serif";
    context.textAlign = "center";
    context.textBaseline = "middle";
    context.fillText(name, x, y);
  }

  outline(unit, colour, width) {
    if (unit === null || unit >= this.shown) return;
    const context = this.canvas.getContext("2d");
    const [x, y] = this.placeOf(unit);
    context.strokeStyle = colour;
    context.lineWidth = width;
    context.strokeRect(x - 1, y - 1, this.tile[1] + 2, this.tile[0] + 2);
  }

  placeOf(unit) {
    const column = unit % this.columns;
    const row = Math.floor(unit / this.columns);
    return [this.gap + column * (this.tile[1] + this.gap), this.gap + row * (this.tile[0] + this.gap)];
  }

  unitAt(event) {
    const box = this.canvas.getBoundingClientRect();
    const column = Math.floor((event.clientX - box.left - this.gap / 2) / (this.tile[1] + this.gap));
    const row = Math.floor((event.clientY - box.top - this.gap / 2) / (this.tile[0] + this.gap));
    const unit = row * this.columns + column;
    return column >= 0 && column < this.columns && row >= 0 && unit < this.shown ? unit : null;
  }

  hover(unit) {
    if (unit === this.hovered) return;
    this.hovered = unit;
    this.draw();
    this.tell();
  }

  choose(unit) {
    if (unit === null) return;
    this.at = unit;
    this.chosen(unit);
  }

  mark(unit) {
    if (unit === this.marked) return;
    this.marked = unit;
    this.draw();
  }

  key(event) {
    const moves = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -this.columns, ArrowDown: this.columns };
    if (event.key in moves) {
      const to = this.at + moves[event.key];
      if (to >= 0 && to < this.shown) this.at = to;
    } else if (event.key === "Home") this.at = 0;
    else if (event.key === "End") this.at = this.shown - 1;
    else if (event.key === "Enter" || event.key === " ") this.choose(this.at);
    else return;
    event.preventDefault();
    this.draw();
    this.tell();
  }

  /** Write the range of the maps, or of the chosen unit, below them. */
  tell() {
    const name = this.isMap ? "map" : "unit";
    const unit = this.hovered ?? (this.frame.matches(":focus-visible") ? this.at : null);
    const some = this.shown < this.units ? `first ${this.shown} of ${whole(this.units)}; ` : "";
    if (!this.activations) this.note.textContent = some;
    else if (unit !== null) this.note.textContent = `${name} ${unit}: ${rangeOf(this.activations, unit, this.isMap)}`;
    else this.note.textContent = some + (this.scale.signed ? `${number(this.scale.low)} to ${number(this.scale.high)}` : `0 to ${number(this.scale.high)}`);
    this.option.setAttribute("aria-posinset", this.at + 1);
    this.option.textContent = `${name} ${this.at}${this.activations ? `, ${rangeOf(this.activations, this.at, this.isMap)}` : ""}`;
  }
}

/** Return the columns of a grid of tiles that is nearly full, and a little wider than high. */
function columnsFor(count) {
  const side = Math.sqrt(count);
  let best = count;
  let least = Infinity;
  for (let columns = Math.ceil(side); columns <= Math.min(count, Math.ceil(1.7 * side)); columns += 1) {
    const empty = (Math.ceil(count / columns) * columns - count) / columns;
    const odd = empty + Math.abs(columns / side - 1.15);
    if (odd < least) [best, least] = [columns, odd];
  }
  return best;
}

/** Return whether a unit has a name that fits into its cell. */
function isNamed(names, unit, wide) {
  return names[unit]?.length <= 2 && wide >= 20;
}

/** Format the value of a unit, or the range of a map. */
export function rangeOf({ shape, data }, unit, isMap) {
  if (!isMap) return number(data[unit]);
  const [height, width, channels] = sides(shape);
  let [low, high] = [Infinity, -Infinity];
  for (let at = unit; at < height * width * channels; at += channels) {
    low = Math.min(low, data[at]);
    high = Math.max(high, data[at]);
  }
  return `${number(low)} to ${number(high)}`;
}
