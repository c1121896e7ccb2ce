// The state of the project, shared by all parts of the page, and the listeners to its changes.

/** The kinds of masks; the values of `Store.kinds`. */
export const KINDS = ["none", "propagated", "annotated"];
const [NONE, PROPAGATED, ANNOTATED] = KINDS.keys();

export class Store {
  video = null; // name, frames, width, height, fps
  objects = []; // of id, name, colour, visible
  requested = new Set(); // the ids of objects that the server has not answered for yet
  current = 0; // the id of the selected object; 0 for none
  kinds = new Uint8Array(0); // by frame, indices in KINDS
  uncertainty = new Float32Array(0); // by frame, in bits; NaN if unknown
  job = null; // as the server describes it
  position = 0; // the frame that the user requested last
  isLocked = false; // no server: strokes cannot be saved
  #listeners = new Map();

  /**
   * Call `listener` at every event of a topic: "state", "objects", "current" (object), "frames" (kinds, uncertainty),
   * "job", "position", "shown" (a frame is on the canvas), "edit" (of its mask), "saving", "cuts", "tool" or "error".
   */
  on(topic, listener) {
    if (!this.#listeners.has(topic)) this.#listeners.set(topic, []);
    this.#listeners.get(topic).push(listener);
  }

  emit(topic, value) {
    for (const listener of this.#listeners.get(topic) ?? []) listener(value);
  }

  /** Load the state of the server. */
  load(state) {
    this.video = state.video;
    this.output = state.output;
    this.kinds = new Uint8Array(state.video.frames);
    for (const [first, last] of state.propagated) this.kinds.fill(PROPAGATED, first, last + 1);
    for (const number of state.annotated) this.kinds[number] = ANNOTATED;
    this.uncertainty = new Float32Array(state.video.frames).fill(NaN);
    for (const [number, value] of Object.entries(state.uncertainty)) this.uncertainty[number] = value;
    this.emit("state");
    this.setObjects(state.objects);
    this.emit("frames");
    this.setJob(state.job);
  }

  setObjects(objects) {
    this.objects = objects;
    if (!this.object(this.current) && !this.requested.has(this.current)) this.select(objects[0]?.id ?? 0);
    this.emit("objects");
  }

  setJob(job) {
    const before = this.job;
    this.job = job;
    this.emit("job", before);
  }

  /** Set the kind and the uncertainty of a frame's mask. */
  setFrame(number, kind, uncertainty) {
    this.kinds[number] = KINDS.indexOf(kind);
    this.uncertainty[number] = uncertainty ?? NaN;
    this.emit("frames");
  }

  get isUnpacking() {
    return this.job?.kind === "unpacking";
  }

  /** The number of the last frame that can be shown: a video file may still be unpacked. */
  get last() {
    return this.isUnpacking ? Math.min(this.job.frame ?? 0, this.video.frames - 1) : this.video.frames - 1;
  }

  object(id) {
    return this.objects.find((object) => object.id === id);
  }

  /** Select the object that the tools draw. */
  select(id) {
    this.current = id;
    this.emit("current");
  }

  kind(number) {
    return KINDS[this.kinds[number]];
  }

  /** Whether any frame has a mask of this kind. */
  hasAny(kind) {
    return this.kinds.includes(KINDS.indexOf(kind));
  }

  /** The nearest annotated frame before (`direction` −1) or after (+1) a frame; null if there is none. */
  annotatedFrom(number, direction) {
    for (let n = number + direction; n >= 0 && n < this.kinds.length; n += direction) {
      if (this.kinds[n] === ANNOTATED) return n;
    }
    return null;
  }

  /** The frames to look at first: local maxima of the uncertainty that lie above three quarters of all values. */
  uncertainFrames() {
    const known = this.uncertainty.filter((value, n) => this.kinds[n] === PROPAGATED && !Number.isNaN(value)).sort();
    if (!known.length) return [];
    const threshold = known[Math.floor(0.75 * (known.length - 1))];
    const reach = Math.max(2, Math.min(50, Math.round(this.uncertainty.length / 50)));
    const peaks = [];
    for (let n = 0; n < this.uncertainty.length; n++) {
      const value = this.uncertainty[n];
      if (this.kinds[n] !== PROPAGATED || !(value >= threshold)) continue;
      const near = this.uncertainty.subarray(Math.max(0, n - reach), n + reach + 1);
      if (near.every((other) => !(other > value)) && n - (peaks.at(-1) ?? -Infinity) > reach) peaks.push(n);
    }
    return peaks;
  }
}
