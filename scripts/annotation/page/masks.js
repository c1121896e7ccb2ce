// The cached masks, their revisions on the server, and the saving of strokes.

import { Cache } from "./cache.js";
import * as api from "./api.js";

const RETRY = 1000; // ms until a request that found no server is sent again

/**
 * An entry is a cached mask: number, ids, kind and revision as `api.getMask` returns them, and `isUnsaved`: whether it
 * has strokes that the server lacks. Unsaved entries are never dropped.
 */
export class Masks {
  #revisions = new Map(); // the newest known revision, by frame
  #queue = new Set(); // entries to be saved
  #saving = null; // the entry that is being saved
  #isRunning = false;
  #ready = Promise.resolve();

  /**
   * @param store the project.
   * @param capacity how many masks are kept.
   * @param isShown whether an entry is on the canvas.
   * @param onChanged is called with the number of a frame whose mask another tab or the network has changed.
   * @param onRefused is called with an entry whose last strokes the server refused, and the error.
   */
  constructor(store, capacity, { isShown, onChanged, onRefused }) {
    Object.assign(this, { store, onChanged, onRefused });
    this.cache = new Cache({
      load: (...request) => this.#load(...request),
      capacity,
      isNeeded: (entry) => entry.isUnsaved || isShown(entry),
    });
  }

  async #load(number, signal, priority) {
    for (;;) {
      const entry = await api.getMask(number, signal, priority);
      const known = this.#revisions.get(number) ?? -1;
      if (entry.revision < known) continue; // an event has told of a newer one meanwhile
      if (entry.revision > known && known >= 0) this.onChanged(number);
      this.#revisions.set(number, entry.revision);
      // A refused stroke has changed the kind on the page.
      if (this.store.kind(number) !== entry.kind) this.store.setFrame(number, entry.kind, null);
      return Object.assign(entry, { isUnsaved: false });
    }
  }

  /** An event: the mask of a frame has this revision now. */
  announce(number, revision) {
    if (revision <= (this.#revisions.get(number) ?? -1)) return; // the page's own stroke, or seen already
    const entry = this.cache.peek(number);
    // The response to the stroke tells whether this is the stroke itself or another change.
    if (entry?.isUnsaved) entry.announced = revision;
    else {
      this.#revisions.set(number, revision);
      if (entry) this.cache.drop(number);
      this.onChanged(number);
    }
  }

  /** Forget all masks and revisions, because events may have been missed. */
  reset() {
    this.#revisions.clear();
    this.cache.clear();
    for (const entry of this.#queue) this.#revisions.set(entry.number, entry.revision);
    this.#run();
  }

  /** Save a mask after a stroke. */
  save(entry) {
    entry.isUnsaved = true;
    this.#queue.add(entry);
    this.store.emit("saving");
    this.#run();
  }

  /** Delay saving until a promise settles, such as that of a new object. */
  after(promise) {
    this.#ready = Promise.allSettled([this.#ready, promise]);
  }

  /** Whether strokes are on their way to the server. */
  get isSaving() {
    return this.#queue.size > 0 || this.#saving !== null;
  }

  /** Settles when all strokes are saved. */
  async idle() {
    while (this.isSaving) await new Promise((resolve) => setTimeout(resolve, 10));
  }

  // One request at a time, with the latest state of a mask.
  async #run() {
    if (this.#isRunning) return;
    this.#isRunning = true;
    let isReachable = true;
    while (this.#queue.size && isReachable) {
      let ready;
      do await (ready = this.#ready);
      while (ready !== this.#ready); // a stroke of a newer object was drawn meanwhile
      const [entry] = this.#queue;
      this.#queue.delete(entry);
      this.#saving = entry;
      try {
        this.#saved(entry, await this.#send(entry));
      } catch (error) {
        isReachable = error.status !== 0;
        if (isReachable) this.#refused(entry, error);
        else this.#queue.add(entry);
      }
      this.#saving = null;
    }
    this.#isRunning = false;
    this.store.emit("saving");
    if (!isReachable) setTimeout(() => this.#run(), RETRY);
  }

  #send(entry) {
    const { number, kind, revision } = entry;
    return kind === "none" ? api.deleteMask(number, revision) : api.putMask(entry);
  }

  #saved(entry, revision) {
    entry.revision = revision;
    entry.isUnsaved = this.#queue.has(entry);
    this.#revisions.set(entry.number, revision);
    if (!entry.isUnsaved && entry.announced > revision) this.announce(entry.number, entry.announced);
  }

  #refused(entry, error) {
    this.#queue.delete(entry);
    entry.isUnsaved = false;
    this.#revisions.delete(entry.number);
    this.cache.drop(entry.number);
    this.onRefused(entry, error);
  }
}
