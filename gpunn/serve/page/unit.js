// Show one unit below its layer: its activation, its weights, its bias, and the samples that activate it most.

import { colourOf, enlarge, extremes, pixels, rows, sides, tile } from "./colours.js";
import { $, h, number, shortened, whole } from "./dom.js";
import { rangeOf } from "./layers.js";

const MOST_CHANNELS = 64; // of a filter to draw

export class UnitPanel {
  /** `predicted(pixels, words)` is called for a chosen image. */
  constructor(engine, layers, { predicted, failed }) {
    Object.assign(this, { engine, layers, predicted, failed, open: null, answer: null });
    this.heading = h("h3", { tabindex: -1 });
    this.now = h("canvas", { class: "pixels" });
    this.nowText = h("p", { class: "note" });
    this.weights = h("div", { class: "weights" });
    this.images = h("div", { class: "images" });
    const close = h("button", { type: "button", class: "quiet", onclick: () => this.close() }, "Close");
    this.root = h(
      "li",
      { class: "unit", onkeydown: (event) => event.key === "Escape" && this.close() },
      h("header", {}, this.heading, close),
      h("div", { class: "parts" }, h("div", {}, h("h4", {}, "Output now"), this.now, this.nowText), this.weights, this.images),
    );
    addEventListener("resize", () => this.open && this.place());
  }

  async show(layer, unit) {
    this.open = { layer, unit };
    this.layers.mark(layer.index, unit);
    const card = this.layers.card(layer.index);
    this.heading.textContent = `${layer.title}, ${card.isMap ? "map" : "unit"} ${unit}`;
    this.weights.replaceChildren();
    this.images.replaceChildren(layer.has_units && this.engine.has.unit ? h("p", { class: "note" }, "Looking through the samples …") : "");
    this.place();
    this.update(this.answer);
    this.heading.focus({ preventScroll: true });
    this.root.scrollIntoView({ block: "nearest" });
    await this.ask();
  }

  /** Ask for the weights and the images; called again when the network has learned more. */
  async ask() {
    if (!this.open) return;
    const { layer, unit } = this.open;
    this.abort?.abort();
    this.abort = new AbortController();
    if (!layer.has_units || !this.engine.has.unit) {
      this.weights.replaceChildren(h("p", { class: "note" }, "This layer has no weights."));
      return;
    }
    try {
      const found = await this.engine.unit(layer.index, unit, this.abort.signal);
      if (this.open?.layer !== layer || this.open.unit !== unit) return;
      this.drawWeights(found);
      this.drawImages(found.images ?? [], found);
      this.root.scrollIntoView({ block: "nearest" });
    } catch (error) {
      if (error.name === "AbortError") return;
      this.images.replaceChildren();
      this.failed(error);
    }
  }

  /** Put the panel below the row of cards with its layer. */
  place() {
    const card = this.layers.card(this.open.layer.index).root;
    this.root.remove();
    const cards = this.layers.all.map(({ root }) => root);
    const row = cards.filter((each) => each.offsetTop === card.offsetTop);
    row.at(-1).after(this.root);
  }

  close() {
    if (!this.open) return;
    const card = this.layers.card(this.open.layer.index);
    this.open = null;
    this.abort?.abort();
    this.root.remove();
    this.layers.mark(null, null);
    card.frame.focus();
  }

  /** Draw the activation of the unit for the newest input. */
  update(answer) {
    this.answer = answer;
    if (!this.open || !answer) return;
    const { layer, unit } = this.open;
    const { isMap } = this.layers.card(layer.index);
    const activations = answer.layers.find(({ index }) => index === layer.index)?.activations;
    if (!activations) return;
    const colour = colourOf(extremes(activations.data));
    if (isMap) enlarge(this.now, tile(activations, unit, colour), 150);
    else enlarge(this.now, tile({ shape: [1, 1, 1], data: [activations.data[unit]] }, 0, colour), 60);
    this.nowText.textContent = rangeOf(activations, unit, isMap);
  }

  drawWeights({ weights, bias, weights_of: of }) {
    const from = this.layers.cards.find(({ layer }) => layer.index === of)?.layer;
    const parts = [h("h4", {}, from && of !== this.open.layer.index ? `Weights of ${from.title}` : "Weights")];
    if (weights) {
      const image = weights.shape.length === 3 ? weights : { shape: sides(weights.shape), data: weights.data };
      const scale = extremes(image.data);
      const colour = colourOf(scale);
      const channels = Math.min(image.shape[2], MOST_CHANNELS);
      const side = channels === 1 ? 150 : 36;
      const row = h("div", { class: channels === 1 ? "" : "channels" });
      for (let channel = 0; channel < channels; channel += 1) {
        const canvas = h("canvas", { class: "pixels", "aria-hidden": "true" });
        const isLong = image.shape[0] === 1 && image.shape[1] > 12 && channels === 1;
        enlarge(canvas, isLong ? rows(image, Math.ceil(Math.sqrt(image.shape[1])), colour) : tile(image, channel, colour), side);
        row.append(canvas);
      }
      const shape = weights.shape.map(whole).join(" × ");
      const some = channels < image.shape[2] ? `, the first ${channels} of its channels drawn` : "";
      parts.push(row, h("p", { class: "note" }, `${shape}${some}; ${number(scale.low)} to ${number(scale.high)}`));
    } else parts.push(h("p", { class: "note" }, "None."));
    if (bias !== null && bias !== undefined) parts.push(h("p", { class: "note" }, `bias ${number(bias)}`));
    this.weights.replaceChildren(...parts);
  }

  drawImages(images, { of, note }) {
    if (!images.length) return this.images.replaceChildren(h("p", { class: "note" }, note ?? ""));
    const buttons = images.map(({ index, set, label, activation, pixels: image }) => {
      const canvas = h("canvas", { class: "pixels", "aria-hidden": "true" });
      enlarge(canvas, pixels(image, this.engine.range), 56);
      const words = `${set} sample ${index}${label === null || label === "" ? "" : `: ${label}`}`;
      const act = () => this.predicted(image, words);
      return h("button", { type: "button", class: "picture", onclick: act, "aria-label": `Show ${words}, activation ${number(activation)}`, title: words }, canvas, h("span", {}, shortened(String(label ?? ""), 10)), h("small", {}, number(activation)));
    });
    return this.images.replaceChildren(h("h4", {}, "Top activations"), h("div", { class: "gallery" }, buttons), h("p", { class: "note" }, of ? `Of ${whole(of)} samples of the ${images[0].set} set.` : ""));
  }
}
