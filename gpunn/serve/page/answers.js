// Show the answer: class and probabilities, values, or a reconstruction.

import { enlarge, pixels } from "./colours.js";
import { $, h, number, percent, shortened, shortNames, throttled } from "./dom.js";

const MOST = 10; // bars, those of the most probable classes

export class Answers {
  constructor(model) {
    this.model = model;
    this.rows = [];
    this.say = throttled((text) => ($("said").textContent = text), 700); // do not flood a screen reader
  }

  show(answer) {
    $("waiting").hidden = true;
    $("answered").hidden = false;
    $("reconstruction").hidden = !answer.reconstruction;
    $("verdict").hidden = !answer.best;
    if (answer.best) this.classes(answer);
    else if (answer.answers?.length) this.several(answer);
    else if (answer.reconstruction) this.reconstruction(answer);
    else this.values(answer.values ?? []);
  }

  clear() {
    $("waiting").hidden = false;
    $("answered").hidden = true;
    this.say("");
  }

  classes({ best, answers }) {
    const ranked = [...answers].sort((a, b) => b.probability - a.probability);
    const second = ranked.find(({ name }) => name !== best.name);
    const rest = second ? `, or ${shortened(second.name)} (${percent(second.probability)})` : "";
    $("best").textContent = best.name;
    $("best").title = best.name;
    $("best").className = best.name.length > 12 ? "best long" : best.name.length > 2 ? "best word" : "best";
    $("sure").textContent = best.sure ? `${percent(best.probability)} sure` : `not sure: ${percent(best.probability)}${rest}`;
    $("sure").classList.toggle("unsure", !best.sure);
    this.say(best.sure ? `${best.name}, ${percent(best.probability)}` : `Not sure: ${best.name}, ${percent(best.probability)}${rest}`);
    this.bars(answers.length <= MOST ? answers : ranked.slice(0, MOST), best);
    $("more").textContent = answers.length > MOST ? `The ten likeliest of ${answers.length} classes.` : "";
  }

  /** Show binary outputs, each with its probability. */
  several({ answers }) {
    this.bars(answers.slice(0, 4 * MOST), null);
    this.say(answers.map(({ name, value, probability }) => `${name} ${value}, ${percent(probability)}`).join("; "));
    $("more").textContent = "Probability that each output is 1, for itself.";
  }

  bars(answers, best) {
    while (this.rows.length < answers.length) {
      const row = { name: h("span", { class: "name" }), fill: h("i"), share: h("span", { class: "share" }) };
      row.line = h("li", {}, row.name, h("span", { class: "bar", "aria-hidden": "true" }, row.fill), row.share);
      this.rows.push(row);
      $("bars").append(row.line);
    }
    const names = shortNames(answers.map(({ name }) => name), 26);
    this.rows.forEach((row, at) => {
      row.line.hidden = at >= answers.length;
      if (row.line.hidden) return;
      const { name, probability } = answers[at];
      row.name.textContent = names[at];
      row.name.title = name;
      row.fill.style.width = `${100 * probability}%`;
      row.share.textContent = percent(probability);
      row.line.classList.toggle("is-best", name === best?.name || (!best && answers[at].value === 1));
    });
  }

  values(values) {
    const lines = values.map(({ name, value, unit }) => h("div", {}, h("dt", {}, name), h("dd", {}, number(value, 4), unit ? h("small", {}, ` ${unit}`) : null)));
    $("values").replaceChildren(...lines);
    this.say(values.map(({ name, value, unit }) => `${name} ${number(value, 4)} ${unit ?? ""}`).join(", "));
  }

  reconstruction({ prepared, reconstruction }) {
    const sum = prepared.data.reduce((total, value, at) => total + (value - reconstruction.data[at]) ** 2, 0);
    const rmse = Math.sqrt(sum / prepared.data.length);
    enlarge($("reconstruction"), pixels(reconstruction, this.model.input), 200);
    $("rmse").textContent = `Differs by ${number(rmse)} in the mean (RMSE).`;
    this.say(`The reconstruction differs by ${number(rmse)}.`);
  }
}
