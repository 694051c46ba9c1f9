// Draw strokes with mouse, pen, touch and keyboard, and keep them as lines, so each can be undone.

const SIDE = 280; // units of the pad at any size on the screen
const MOVE = 8; // units that an arrow key moves the pen; with Shift four times as far

export class Pad {
  /** `root` holds a canvas.ink, and above it a canvas.cursor, which takes the focus. */
  constructor(root, { changed, told }) {
    this.ink = root.querySelector("canvas.ink");
    this.top = root.querySelector("canvas.cursor");
    this.changed = changed;
    this.told = told;
    this.strokes = [];
    this.width = 20;
    this.pointer = null;
    this.pen = { x: SIDE / 2, y: SIDE / 2, down: false };
    const factor = Math.min(3, Math.ceil(devicePixelRatio || 1));
    for (const canvas of [this.ink, this.top]) {
      canvas.width = canvas.height = SIDE * factor;
      canvas.getContext("2d").scale(factor, factor);
    }
    const on = (name, act) => this.top.addEventListener(name, act);
    on("pointerdown", (event) => this.begin(event));
    on("pointermove", (event) => this.go(event));
    on("pointerup", (event) => this.end(event));
    on("pointercancel", (event) => this.end(event));
    on("keydown", (event) => this.key(event));
    on("focus", () => this.drawCursor());
    on("blur", () => {
      this.pen.down = false;
      this.drawCursor();
    });
    this.redraw();
  }

  get isEmpty() {
    return this.strokes.length === 0;
  }

  clear() {
    if (this.isEmpty) return;
    this.strokes = [];
    this.pen.down = false;
    this.redraw();
    this.changed();
  }

  undo() {
    if (this.isEmpty) return;
    this.strokes.pop();
    this.pen.down = false;
    this.redraw();
    this.changed();
  }

  /** Return the drawing, dark on white, as a canvas of 280 × 280 pixels. */
  picture() {
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = SIDE;
    this.paint(canvas.getContext("2d"));
    return canvas;
  }

  paint(context) {
    context.fillStyle = "#fff";
    context.fillRect(0, 0, SIDE, SIDE);
    for (const stroke of this.strokes) for (let to = 0; to < stroke.length; to += 1) draw(context, stroke, to);
  }

  redraw() {
    this.paint(this.ink.getContext("2d"));
    this.drawCursor();
  }

  /** Add a point to the last stroke, and draw the line to it. */
  add(x, y, width) {
    const stroke = this.strokes.at(-1);
    stroke.push({ x: within(x), y: within(y), width });
    draw(this.ink.getContext("2d"), stroke, stroke.length - 1);
  }

  place(event) {
    const box = this.top.getBoundingClientRect();
    const pressure = event.pointerType === "pen" && event.pressure > 0 ? 0.5 + event.pressure : 1;
    return [
      ((event.clientX - box.left) / box.width) * SIDE,
      ((event.clientY - box.top) / box.height) * SIDE,
      this.width * pressure,
    ];
  }

  begin(event) {
    if (this.pointer !== null || event.button !== 0) return; // ignore a second finger
    event.preventDefault();
    this.top.focus({ preventScroll: true, focusVisible: false });
    this.pointer = event.pointerId;
    try {
      this.top.setPointerCapture(event.pointerId);
    } catch {} // a pointer that a script made up cannot be captured
    this.pen.down = false;
    this.strokes.push([]);
    this.add(...this.place(event));
    this.drawCursor();
    this.changed();
  }

  go(event) {
    if (event.pointerId !== this.pointer) return;
    const all = event.getCoalescedEvents?.() ?? [];
    for (const each of all.length ? all : [event]) this.add(...this.place(each));
    this.changed();
  }

  end(event) {
    if (event.pointerId === this.pointer) this.pointer = null;
  }

  key(event) {
    const by = MOVE * (event.shiftKey ? 4 : 1);
    const moves = { ArrowLeft: [-by, 0], ArrowRight: [by, 0], ArrowUp: [0, -by], ArrowDown: [0, by] };
    if (event.key in moves && !event.altKey && !event.ctrlKey && !event.metaKey) {
      const { pen } = this;
      pen.x = within(pen.x + moves[event.key][0]);
      pen.y = within(pen.y + moves[event.key][1]);
      if (pen.down) {
        this.add(pen.x, pen.y, this.width);
        this.changed();
      }
    } else if (event.key === " " || event.key === "Enter") {
      if (!event.repeat) this.press(!this.pen.down);
    } else if (event.key === "Escape" && this.pen.down) {
      this.press(false);
    } else if (event.key === "Delete" || event.key === "Backspace") {
      this.clear();
      this.told("Cleared.");
    } else if (event.key.toLowerCase() === "z" && (event.ctrlKey || event.metaKey)) {
      this.undo();
      this.told("Last stroke removed.");
    } else return;
    event.preventDefault();
    this.drawCursor();
  }

  press(down) {
    this.pen.down = down;
    if (down) {
      this.strokes.push([]);
      this.add(this.pen.x, this.pen.y, this.width);
      this.changed();
    }
    this.told(down ? "Pen down: arrow keys draw." : "Pen up: arrow keys move.");
  }

  /** Show the pen of the keyboard while the pad has the keyboard focus. */
  drawCursor() {
    const context = this.top.getContext("2d");
    context.clearRect(0, 0, SIDE, SIDE);
    if (!this.top.matches(":focus-visible") || this.pointer !== null) return;
    const { x, y, down } = this.pen;
    for (const [colour, wide] of [["#fff", 4], [down ? "#D55E00" : "#0072B2", 2]]) {
      context.strokeStyle = colour;
      context.lineWidth = wide;
      context.beginPath();
      context.arc(x, y, this.width / 2 + 2, 0, 2 * Math.PI);
      for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
        context.moveTo(x + dx * (this.width / 2 + 2), y + dy * (this.width / 2 + 2));
        context.lineTo(x + dx * (this.width / 2 + 9), y + dy * (this.width / 2 + 9));
      }
      context.stroke();
    }
  }
}

function within(place) {
  return Math.min(SIDE, Math.max(0, place));
}

/** Draw the line to a point of a stroke from the one before; a single point is a dot. */
function draw(context, stroke, to) {
  const { x, y, width } = stroke[to];
  const from = stroke[Math.max(0, to - 1)];
  context.strokeStyle = "#111";
  context.lineCap = context.lineJoin = "round";
  context.lineWidth = width;
  context.beginPath();
  context.moveTo(from.x, from.y);
  context.lineTo(x, y + (from === stroke[to] ? 0.01 : 0)); // some browsers do not draw a line of length 0
  context.stroke();
}
