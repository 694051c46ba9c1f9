// Ask about an input that keeps changing: one request runs, the newest input waits, all between are dropped.

export class Asker {
  /** `answer` asks the engine; `shown` gets the answer to the newest input, `failed` its error. */
  constructor(answer, shown, failed) {
    Object.assign(this, { answer, shown, failed });
    this.waiting = null;
    this.abort = null;
    this.turn = 0;
  }

  /** Ask about an input, in place of the one that waits. */
  ask(input) {
    this.waiting = input;
    if (!this.busy) this.next();
  }

  /** Drop the waiting input, and abort the running request. */
  cancel() {
    this.waiting = null;
    this.turn += 1;
    this.abort?.abort();
  }

  async next() {
    this.busy = true;
    try {
      while (this.waiting !== null) {
        const input = this.waiting;
        const turn = this.turn;
        this.waiting = null;
        this.abort = new AbortController();
        try {
          const answer = await this.answer(input, this.abort.signal);
          if (turn === this.turn) this.shown(answer, input);
        } catch (error) {
          if (turn === this.turn && error.name !== "AbortError") this.failed(error, input);
        }
        await new Promise(requestAnimationFrame); // one answer per frame is enough
      }
    } finally {
      this.busy = false;
    }
  }
}
