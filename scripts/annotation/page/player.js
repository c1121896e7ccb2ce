// Playback: frames follow the clock, and late frames are skipped.

import { AHEAD } from "./shown.js";

const DEFAULT_FPS = 24;

export class Player {
  isPlaying = false;

  /**
   * @param store the project.
   * @param shown shows frames.
   * @param onChange is called when playing starts or stops.
   */
  constructor(store, shown, onChange) {
    Object.assign(this, { store, shown, onChange });
  }

  toggle() {
    if (this.isPlaying) this.stop();
    else this.#play();
  }

  stop() {
    if (!this.isPlaying) return;
    this.isPlaying = false;
    this.shown.ahead = AHEAD.still;
    this.onChange();
  }

  async #play() {
    this.isPlaying = true;
    this.shown.ahead = AHEAD.playing;
    this.onChange();
    const { fps } = this.store.video;
    const { last } = this.store;
    const first = this.store.position === last ? 0 : this.store.position;
    const started = performance.now();
    while (this.isPlaying) {
      const due = first + Math.floor(((performance.now() - started) / 1000) * (fps || DEFAULT_FPS));
      if (due !== this.shown.number) await this.shown.seek(Math.min(due, last));
      if (due >= last) this.stop();
      else await new Promise(requestAnimationFrame);
    }
  }
}
