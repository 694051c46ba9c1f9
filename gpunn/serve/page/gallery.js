// Show mistakes and the confusion matrix.

import { cssColour, enlarge, pixels } from "./colours.js";
import { $, h, percent, shortened, shortNames, whole } from "./dom.js";

const AT_ONCE = 24;

export class Mistakes {
  constructor(engine, { predicted }) {
    Object.assign(this, { engine, predicted, count: 0 });
    $("more-mistakes").addEventListener("click", () => this.more());
  }

  /** Show the first mistakes, or as many as before if the network has learned more. */
  async start() {
    await this.load(0, Math.min(200, Math.max(AT_ONCE, this.count)));
  }

  more() {
    return this.load(this.count, AT_ONCE);
  }

  async load(first, count) {
    try {
      const { set, total, of, mistakes } = await this.engine.mistakes(first, count);
      this.count = first + mistakes.length;
      const kind = set ? `${set} samples` : "samples";
      const share = of ? ` (${percent(total / of)})` : "";
      $("mistakes-count").textContent = total ? `${whole(total)} of ${whole(of)} ${kind} are answered wrongly${share}, first those that give the true class least.` : `All ${whole(of)} ${kind} are answered rightly.`;
      if (!first) $("mistakes-gallery").replaceChildren();
      $("mistakes-gallery").append(...mistakes.map((each) => this.button(each)));
      $("more-mistakes").hidden = this.count >= total || !mistakes.length;
    } catch (error) {
      $("mistakes-count").textContent = error.message;
    }
    $("mistakes").hidden = false;
  }

  button({ index, true: right, predicted, probability, pixels: image }) {
    const canvas = h("canvas", { class: "pixels", "aria-hidden": "true" });
    enlarge(canvas, pixels(image, this.engine.range), 64);
    const words = `sample ${index}: ${right}, taken for ${predicted}`;
    return h(
      "button",
      { type: "button", class: "picture", title: words, "aria-label": `Show ${words}, ${percent(probability)} sure`, onclick: () => this.predicted(image, words) },
      canvas,
      h("span", {}, shortened(right, 12), h("b", {}, " → "), shortened(predicted, 12)),
      h("small", {}, percent(probability)),
    );
  }
}

/** Draw the confusion matrix as a table: a row for each true class, tinted by its share of the row. */
export function drawConfusion({ classes, counts }) {
  const names = shortNames(classes, 18);
  const isUpright = classes.length > 8 && classes.some((name) => name.length > 4);
  const heads = classes.map((name, at) => h("th", { scope: "col", title: name, class: isUpright ? "upright" : null }, names[at]));
  const head = h("tr", {}, h("td", { class: "corner" }, h("span", {}, "true ↓", h("br"), "predicted →")), heads);
  const rows = counts.map((row, at) => {
    const sum = row.reduce((a, b) => a + b, 0) || 1;
    const cells = row.map((count, to) => {
      const share = count / sum;
      const cell = h("td", { class: count ? "" : "none", title: `${classes[at]} predicted as ${classes[to]}: ${count}` }, whole(count));
      if (count) {
        const tint = at === to ? -share : 0.25 + 0.75 * share; // correct cells blue, and even one mistake visible
        cell.style.background = cssColour(tint, { largest: 1.25 });
        cell.style.color = Math.abs(tint) > 0.62 ? "#fff" : "#1d2129";
      }
      return cell;
    });
    return h("tr", {}, h("th", { scope: "row", title: classes[at] }, names[at]), cells);
  });
  $("confusion-table").replaceChildren(h("thead", {}, head), h("tbody", {}, rows));
  const pairs = counts.flatMap((row, at) => row.map((count, to) => ({ count: at === to ? 0 : count, at, to })));
  const most = pairs.filter(({ count }) => count).sort((a, b) => b.count - a.count).slice(0, 3);
  const words = most.map(({ count, at, to }) => `${names[at]} predicted as ${names[to]} (${whole(count)})`);
  $("confusion-note").textContent = words.length ? `Most frequent mistakes: ${words.join(", ")}.` : "No mistakes.";
}
