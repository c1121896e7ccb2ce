// The frame on the canvas: seeking, reloading, and fetching its neighbours in advance.

import { Cache } from "./cache.js";
import { Masks } from "./masks.js";
import * as api from "./api.js";

const REST = 80; // ms on a frame until its neighbours are fetched
const MOST = 32; // frames and masks that are kept
const MOST_BYTES = 256 * 2 ** 20; // of decoded frames, which bounds the number of large ones

/** Which frames are fetched in advance, counted from the frame on the canvas. */
export const AHEAD = { still: [1, -1, 2], playing: [1, 2, 3, 4] };

export class Shown {
  number = -1;
  bitmap = null;
  entry = null; // see masks.js; null while the mask is fetched again
  ahead = AHEAD.still;
  #ticket = 0;
  #waiting = null; // what `follow` shows next
  #isFollowing = false;
  #timer = 0;

  /**
   * @param store the project.
   * @param view draws the frame and its mask.
   * @param onChanged, onRefused: see masks.js.
   */
  constructor(store, view, { onChanged, onRefused }) {
    Object.assign(this, { store, view });
    const { width, height } = store.video;
    const capacity = Math.max(6, Math.min(MOST, Math.floor(MOST_BYTES / (4 * width * height))));
    this.frames = new Cache({
      load: api.getFrame,
      capacity,
      isNeeded: (bitmap) => bitmap === this.bitmap,
      release: (bitmap) => bitmap.close(),
    });
    this.masks = new Masks(store, capacity, { isShown: (entry) => entry === this.entry, onChanged, onRefused });
  }

  #clamped(number) {
    return Math.max(0, Math.min(this.store.last, number));
  }

  /** Show a frame; settles when frame and mask are on the canvas, or when another frame is requested. */
  async seek(number) {
    number = this.#clamped(number);
    const ticket = ++this.#ticket;
    this.#waiting = null;
    this.#ask(number);
    if (number === this.number && this.entry) return;
    for (const cache of [this.frames, this.masks.cache]) cache.cancelOthers(number, ...this.#aheadOf(number));
    await this.#show(number, ticket);
    clearTimeout(this.#timer);
    // A seek must not wait for the neighbours of the previous frame.
    this.#timer = setTimeout(() => this.#prefetch(ticket), this.ahead === AHEAD.playing ? 0 : REST);
  }

  #ask(number) {
    this.store.position = number;
    this.store.emit("position");
  }

  /** Show frames that are requested faster than they can be fetched; outdated requests are skipped. */
  async follow(number) {
    this.#waiting = this.#clamped(number);
    this.#ask(this.#waiting);
    if (this.#isFollowing) return;
    this.#isFollowing = true;
    while (this.#waiting !== null) await this.seek(this.#waiting);
    this.#isFollowing = false;
  }

  async #show(number, ticket) {
    try {
      const [bitmap, entry] = await Promise.all([this.frames.get(number), this.masks.cache.get(number)]);
      if (ticket !== this.#ticket) return;
      Object.assign(this, { number, bitmap, entry });
      this.view.show(bitmap, entry.ids);
      this.store.emit("shown");
    } catch (error) {
      if (error.name !== "AbortError" && ticket === this.#ticket) this.store.emit("error", error);
    }
  }

  /** The mask of a frame, whatever frame is shown. */
  async mask(number) {
    for (;;) {
      try {
        return await this.masks.cache.get(number);
      } catch (error) {
        if (error.name !== "AbortError") throw error; // else a seek has cancelled the fetch
      }
    }
  }

  /** Fetch the mask of the frame on the canvas again, unless another frame is about to replace it. */
  async reload() {
    this.entry = null;
    if (this.store.position === this.number) await this.#show(this.number, ++this.#ticket);
  }

  /** Fetch all again, after a break of the connection. */
  reset() {
    const isSaved = !this.entry?.isUnsaved;
    if (isSaved) this.entry = null;
    this.masks.reset();
    if (isSaved) this.reload();
  }

  #aheadOf(number) {
    return this.ahead.map((step) => this.#clamped(number + step));
  }

  async #prefetch(ticket) {
    for (const number of this.#aheadOf(this.number)) {
      if (ticket !== this.#ticket) return;
      // A failed fetch raises an error when the frame is requested.
      await Promise.allSettled([this.frames.get(number, "low"), this.masks.cache.get(number, "low")]);
    }
  }
}
