// Offer inputs other than pictures, columns of a table or a vector, as sliders, selects and numbers.

import { $, h, number } from "./dom.js";

const MOST_SLIDERS = 64; // of a vector; a longer one is typed as text

export class Fields {
  /** `changed(input)` is called for every change: {values} of a table, {pixels} of a vector. */
  constructor(model, changed) {
    Object.assign(this, { model, changed });
    const { kind, columns, shape } = model.input;
    const count = shape.reduce((a, b) => a * b, 1);
    this.isTable = kind === "table" && columns?.length > 0;
    if (this.isTable) this.fields = columns.map((column) => fieldOf(column, () => this.tell()));
    else if (count <= MOST_SLIDERS && kind !== "tokens") {
      this.fields = Array.from({ length: count }, (_, at) => fieldOf({ name: `input ${at + 1}`, kind: "number", ...(columns?.[at] ?? { min: -3, max: 3, mean: 0 }) }, () => this.tell()));
    } else this.fields = [textOf(count, kind, columns, () => this.tell())];
    this.canReset = kind !== "tokens";
    $("fields").replaceChildren(...this.fields.map(({ root }) => root));
  }

  reset() {
    for (const field of this.fields) field.reset();
    this.tell();
  }

  /** Set the fields to a sample as the network sees it, with standardised numbers and one-hot categories of a table. */
  set(features) {
    if (this.fields[0].isText) return this.fields[0].set(features);
    let at = 0;
    this.fields.forEach((field, number) => {
      const { categories, mean, deviation } = this.model.input.columns?.[number] ?? {};
      if (categories) {
        const own = Array.from(features.slice(at, at + categories.length));
        field.set(categories[own.indexOf(Math.max(...own))]);
        at += categories.length;
      } else {
        field.set(this.isTable ? mean + (deviation ?? 1) * features[at] : features[at]);
        at += 1;
      }
    });
    return undefined;
  }

  tell() {
    const values = this.fields.map((field) => field.value());
    if (values.some((value) => value === null)) return; // half typed
    if (this.isTable) this.changed({ values: Object.fromEntries(this.fields.map(({ name }, at) => [name, values[at]])) });
    else this.changed({ pixels: this.fields[0].isText ? values[0] : values });
  }
}

function fieldOf(column, changed) {
  return column.kind === "category" ? selectOf(column, changed) : sliderOf(column, changed);
}

function selectOf({ name, categories, usual }, changed) {
  const select = h("select", { onchange: changed }, categories.map((each) => h("option", { value: each }, each)));
  const reset = () => (select.value = usual ?? categories[0]);
  reset();
  return {
    name,
    root: h("label", { class: "field" }, h("span", { class: "name" }, name), select),
    value: () => select.value,
    set: (value) => (select.value = value),
    reset,
  };
}

function sliderOf({ name, min, max, mean, unit }, changed) {
  const [low, high] = [min ?? -3, max ?? 3];
  const middle = mean ?? (low + high) / 2;
  const step = niceStep((high - low) / 200);
  const digits = Math.min(20, Math.max(0, 1 - Math.floor(Math.log10(step)))); // one finer than a step of the slider
  const rounded = (value) => Number(Number(value).toFixed(digits));
  const words = unit ? `${name} (${unit})` : name;
  const slider = h("input", { type: "range", min: low, max: high, step: "any", "aria-label": words });
  const box = h("input", { type: "number", step: "any", "aria-label": `${words}, as a number` });
  const set = (value) => {
    slider.value = value;
    box.value = rounded(value);
  };
  slider.addEventListener("input", () => {
    box.value = rounded(Math.round(slider.value / step) * step);
    changed();
  });
  box.addEventListener("input", () => {
    if (box.value !== "") slider.value = box.value;
    box.setAttribute("aria-invalid", String(box.value === "" || !Number.isFinite(box.valueAsNumber)));
    changed();
  });
  set(middle);
  const note = `${number(low)} to ${number(high)}, mean ${number(rounded(middle))}`;
  return {
    name,
    root: h("div", { class: "field" }, h("span", { class: "name" }, name, unit ? h("small", {}, ` ${unit}`) : null), slider, box, h("small", { class: "note" }, note)),
    value: () => (Number.isFinite(box.valueAsNumber) ? box.valueAsNumber : null),
    set,
    reset: () => set(middle),
  };
}

function textOf(count, kind, columns, changed) {
  const what = kind === "tokens" ? "whole numbers" : "numbers";
  const text = h("textarea", { rows: 5, spellcheck: "false", "aria-label": `${count} ${what}` });
  text.addEventListener("input", changed);
  const note = h("small", { class: "note" }, `${count} ${what}, with spaces or commas between them`);
  const read = () => text.value.split(/[\s,;]+/).filter(Boolean).map(Number);
  const set = (values) => (text.value = Array.from(values, (value) => Number(value.toPrecision(5))).join(" "));
  set(Array.from({ length: count }, (_, at) => columns?.[at]?.mean ?? 0));
  return {
    name: "values",
    isText: true,
    root: h("label", { class: "field text" }, text, note),
    value: () => {
      const values = read();
      const isRight = values.length === count && values.every(Number.isFinite);
      note.textContent = isRight ? `${count} ${what}` : `${count} ${what} are wanted, ${values.length} are there`;
      text.setAttribute("aria-invalid", String(!isRight));
      return isRight ? values : null;
    },
    set,
    reset: () => set(Array.from({ length: count }, (_, at) => columns?.[at]?.mean ?? 0)),
  };
}

/** Return a step of 1, 2 or 5 times a power of ten near `step`. */
function niceStep(step) {
  const power = 10 ** Math.floor(Math.log10(step || 1));
  return [1, 2, 5, 10].map((each) => each * power).find((each) => each >= step) ?? power;
}
