// Questions asked while the input still changes: one under way, the newest waiting, none in a queue.

export class Asker {
  /** `answer` asks the engine; `shown` gets the answer of the newest input, `failed` its error. */
  constructor(answer, shown, failed) {
    Object.assign(this, { answer, shown, failed });
    this.waiting = null;
    this.abort = null;
    this.turn = 0;
  }

  /** Ask about an input; what was waiting is dropped, and what is under way is shown only if nothing newer has come. */
  ask(input) {
    this.waiting = input;
    if (!this.busy) this.next();
  }

  /** Forget what waits and what is under way. */
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
        await new Promise(requestAnimationFrame); // a picture of the screen for each answer is enough
      }
    } finally {
      this.busy = false;
    }
  }
}
