// Undo and redo, for each frame on its own.

const MOST_BYTES = 64 * 2 ** 20; // of all steps of all frames; the oldest are dropped first
const MOST_STEPS = 100; // of a frame

/**
 * A step is a changed rectangle of a mask: `rect`, the ids `before` and `after` as `raster.cut` gives them, the kinds of
 * the mask, `kindBefore` and `kindAfter`, and the `uncertainty` before, NaN if it is unknown.
 */
export class History {
  #frames = new Map(); // number → done and undone steps; the most recently changed frame comes last

  #of(number) {
    const steps = this.#frames.get(number) ?? { done: [], undone: [] };
    this.#frames.delete(number);
    this.#frames.set(number, steps);
    return steps;
  }

  /** Record a step. */
  add(number, step) {
    const steps = this.#of(number);
    steps.undone = [];
    steps.done.push(step);
    if (steps.done.length > MOST_STEPS) steps.done.shift();
    const bytes = ({ done, undone }) => [...done, ...undone].reduce((sum, each) => sum + 2 * each.before.length, 0);
    let total = [...this.#frames.values()].reduce((sum, each) => sum + bytes(each), 0);
    for (const [other, { done }] of this.#frames) {
      if (total <= MOST_BYTES) break;
      if (other !== number) {
        total -= bytes(this.#frames.get(other));
        this.#frames.delete(other);
      } else while (total > MOST_BYTES && done.length > 1) total -= 2 * done.shift().before.length;
    }
  }

  /** The step to undo, which can be redone afterwards; undefined if there is none. */
  undo(number) {
    const { done, undone } = this.#of(number);
    if (done.length) undone.push(done.at(-1));
    return done.pop();
  }

  /** The step to redo; undefined if there is none. */
  redo(number) {
    const { done, undone } = this.#of(number);
    if (undone.length) done.push(undone.at(-1));
    return undone.pop();
  }

  canUndo(number) {
    return Boolean(this.#frames.get(number)?.done.length);
  }

  canRedo(number) {
    return Boolean(this.#frames.get(number)?.undone.length);
  }

  /** Drop the steps of a frame whose mask was changed elsewhere. */
  forget(number) {
    this.#frames.delete(number);
  }

  /** Drop all steps. */
  clear() {
    this.#frames.clear();
  }
}
