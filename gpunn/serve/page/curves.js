// Draw the learning curves with uPlot, live during a training.

import { $, h, number, throttled, whole } from "./dom.js";

const FIGURES = { accuracy: "Accuracy", r2: "R²", rmse: "RMSE" }; // the first that was recorded is drawn beside the loss
const COLOURS = { train: ["#0072B2", "#56B4E9"], validation: ["#D55E00", "#E69F00"] }; // light, dark
const NAMES = { train: "training", validation: "validation" };

export class Curves {
  /** `renewed` is called for a newer network, `changed` for a new state, `connected` for a lost or restored server. */
  constructor(engine, { renewed, changed, connected, failed }) {
    Object.assign(this, { engine, renewed, changed, connected, failed, best: null, columns: [], rows: [], plots: [] });
    this.draw = throttled(() => this.drawn(), 100);
    addEventListener("theme", () => this.rebuild());
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.rebuild());
    new ResizeObserver(throttled(() => this.resize(), 100)).observe($("plots"));
  }

  /** Load the history, and follow the training. */
  async start() {
    await this.load();
    let first = true;
    const step = this.rows.at(-1)?.[this.columns.indexOf("step")] ?? null;
    const heard = {
      record: (row) => this.add(row),
      state: (found) => this.changed(found.state),
      reset: () => this.load(),
      renewed: () => this.renewed(),
      connected: (is) => {
        this.connected(is);
        if (is && !first) this.load(); // the server was gone, and may be another one
        first = false;
      },
    };
    this.engine.watch(heard, step);
  }

  async load() {
    try {
      const { columns, rows, best } = await this.engine.history();
      Object.assign(this, { columns, rows, best });
      $("training").hidden = !columns.length;
      this.draw();
    } catch (error) {
      this.failed(error);
    }
  }

  add(record) {
    if (!this.columns.length) this.columns = Object.keys(record);
    const step = this.columns.indexOf("step");
    const row = this.columns.map((name) => record[name] ?? null);
    const last = this.rows.at(-1);
    if (last && step >= 0 && row[step] <= last[step]) return; // already known
    this.rows.push(row);
    this.best = null; // known again at the end
    $("training").hidden = false;
    this.draw();
  }

  values(name) {
    const at = this.columns.indexOf(name);
    return this.rows.map((row) => row[at] ?? null);
  }

  /** Return the curves to draw: the loss, and the first other metric that was recorded. */
  figures() {
    const other = Object.keys(FIGURES).find((name) => this.columns.includes(`train_${name}`));
    return ["loss", other].filter(Boolean);
  }

  async drawn() {
    if ($("training").hidden || !this.columns.length) return;
    await loadPlots();
    if (this.plots.length !== this.figures().length) this.rebuild();
    const x = this.values(this.columns.includes("epoch") ? "epoch" : "step");
    for (const { plot, series } of this.plots) plot.setData([x, ...series.map((name) => this.values(name))]);
    this.tell();
  }

  rebuild() {
    if (!globalThis.uPlot || !this.columns.length) return;
    for (const { plot } of this.plots) plot.destroy();
    const style = getComputedStyle(document.documentElement);
    const [ink, line] = [style.getPropertyValue("--faint"), style.getPropertyValue("--line")];
    const dark = style.getPropertyValue("--is-dark").trim() === "1";
    const axis = { stroke: ink, grid: { stroke: line, width: 1 }, ticks: { stroke: line, width: 1 }, font: "12px system-ui, sans-serif" };
    const x = this.values(this.columns.includes("epoch") ? "epoch" : "step");
    this.plots = this.figures().map((figure) => {
      const series = Object.keys(COLOURS).map((set) => `${set}_${figure}`).filter((name) => this.columns.includes(name));
      const lines = series.map((name) => {
        const set = name.split("_")[0];
        const dash = set === "validation" ? [6, 3] : undefined; // differs without colours too
        return { label: NAMES[set], stroke: COLOURS[set][dark ? 1 : 0], width: 2, dash, points: { show: (plot) => plot.data[0].length < 3, size: 6 }, value: (_, value) => number(value, 4) };
      });
      const room = this.room();
      const options = {
        width: room,
        height: 230,
        scales: { x: { time: false }, y: figure === "loss" && this.isPositive(series) ? { range: (_, low, high) => [0, high * 1.05 || 1] } : {} },
        axes: [{ ...axis, label: this.columns.includes("epoch") ? "epoch" : "step", labelSize: 20, size: 34, labelFont: axis.font }, { ...axis, size: 52 }],
        series: [{ label: "at", value: (_, value) => number(value, 4) }, ...lines],
        legend: { live: false },
        cursor: { drag: { x: false, y: false } },
        hooks: { draw: [(plot) => figure === "loss" && this.ring(plot, dark)] },
      };
      const holder = h("figure", { role: "img" }, h("figcaption", {}, figure === "loss" ? "Loss" : FIGURES[figure]));
      const plot = new globalThis.uPlot(options, [x, ...series.map((name) => this.values(name))], holder);
      return { plot, series, holder, figure };
    });
    $("plots").replaceChildren(...this.plots.map(({ holder }) => holder));
    this.resize();
    this.tell();
  }

  /** Ring the lowest validation loss, as curves.png does. */
  ring(plot, dark) {
    const at = this.values("step").indexOf(this.best);
    const value = this.values("validation_loss")[at];
    if (at < 0 || value === undefined || value === null) return;
    const { ctx } = plot;
    ctx.strokeStyle = dark ? "#4cc79a" : "#009E73";
    ctx.lineWidth = 2 * devicePixelRatio;
    ctx.setLineDash([]);
    ctx.beginPath();
    ctx.arc(plot.valToPos(plot.data[0][at], "x", true), plot.valToPos(value, "y", true), 6 * devicePixelRatio, 0, 2 * Math.PI);
    ctx.stroke();
  }

  isPositive(series) {
    return series.every((name) => this.values(name).every((value) => value === null || value >= 0));
  }

  room() {
    const all = $("plots").clientWidth;
    return Math.max(240, all < 720 ? all : (all - 24) / 2);
  }

  resize() {
    for (const { plot } of this.plots) plot.setSize({ width: this.room(), height: 230 });
  }

  /** Describe the last record, for screen readers too. */
  tell() {
    const last = Object.fromEntries(this.columns.map((name, at) => [name, this.rows.at(-1)?.[at]]));
    const parts = [["epoch", last.epoch], ["step", last.step]].filter(([, value]) => value !== null && value !== undefined).map(([name, value]) => `${name} ${name === "step" ? whole(value) : number(value, 4)}`);
    for (const figure of this.figures()) {
      const form = figure === "accuracy" ? (value) => `${(100 * value).toFixed(2)}\u00a0%` : (value) => number(value, 4);
      for (const set of Object.keys(COLOURS)) {
        const value = last[`${set}_${figure}`];
        if (value !== null && value !== undefined) parts.push(`${NAMES[set]} ${FIGURES[figure]?.toLowerCase() ?? figure} ${form(value)}`);
      }
    }
    const ring = this.rows.some((row) => row[this.columns.indexOf("step")] === this.best) ? ". The ring marks the lowest validation loss." : "";
    $("last-row").textContent = this.rows.length ? parts.join(" · ") + ring : "Nothing recorded yet.";
    for (const { holder, figure } of this.plots) holder.setAttribute("aria-label", `Curves of the ${figure}: ${$("last-row").textContent}`);
  }
}

let loading = null;

/** Load uPlot, which only a page with curves needs. */
function loadPlots() {
  loading ??= new Promise((resolve, reject) => {
    const base = new URL("./", import.meta.url);
    document.head.append(h("link", { rel: "stylesheet", href: new URL("uplot.min.css", base).href }));
    document.head.append(h("script", { src: new URL("uplot.min.js", base).href, onload: resolve, onerror: () => reject(new Error("uplot.min.js was not found.")) }));
  });
  return loading;
}
