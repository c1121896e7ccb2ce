// The timeline and the thumbnails above it, which share one scale: each frame takes the same part of the width.

import { KINDS } from "./store.js";
import { thumbnail } from "./api.js";

const LEAST_SPAN = 0.25; // bits: the minimum range of the curve's scale, so that small differences look small
const [CURVE, STATUS] = [0.55, 0.8]; // heights: where the curve ends, and the middle of the row of masks
const element = (id) => document.getElementById(id);

export class Timeline {
  #isDue = false;
  #thumbnails = 0;

  /**
   * @param store the project.
   * @param onSeek is called with the frame that the user points at.
   */
  constructor(store, onSeek) {
    Object.assign(this, { store, onSeek });
    this.canvas = element("timeline");
    const track = element("track");
    const seek = (event) => {
      const { left, width } = track.getBoundingClientRect();
      const number = Math.floor(((event.clientX - left) / width) * store.video.frames);
      onSeek(Math.max(0, Math.min(store.video.frames - 1, number)));
    };
    track.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      track.setPointerCapture(event.pointerId);
      seek(event);
    });
    track.addEventListener("pointermove", (event) => track.hasPointerCapture(event.pointerId) && seek(event));
    new ResizeObserver(() => this.#resize()).observe(track);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#plan());
    store.on("job", (before) => before?.kind === "unpacking" && this.#showThumbnails());
    for (const topic of ["state", "frames"]) store.on(topic, () => this.#plan());
    store.on("position", () => this.#showPosition());
    this.#showPosition();
  }

  #resize() {
    this.canvas.width = Math.round(this.canvas.clientWidth * devicePixelRatio);
    this.canvas.height = Math.round(this.canvas.clientHeight * devicePixelRatio);
    this.#showThumbnails();
    this.#plan();
  }

  #showThumbnails() {
    if (this.store.isUnpacking) return;
    const strip = element("thumbnails");
    const { frames, width, height } = this.store.video;
    const thumbnailWidth = Math.max(24, (strip.clientHeight * width) / height);
    const count = Math.max(1, Math.min(frames, Math.round(strip.clientWidth / thumbnailWidth)));
    if (count === this.#thumbnails) return;
    this.#thumbnails = count;
    strip.replaceChildren(
      ...Array.from({ length: count }, (_, index) => {
        const number = Math.floor(((index + 0.5) / count) * frames);
        return Object.assign(new Image(), { fetchPriority: "low", draggable: false, alt: "", src: thumbnail(number) });
      }),
    );
  }

  #showPosition() {
    const { position, video } = this.store;
    document.documentElement.style.setProperty("--position", (position + 0.5) / video.frames);
    const uncertainty = this.store.uncertainty[position];
    const known = Number.isNaN(uncertainty) ? "" : `, uncertainty ${uncertainty.toFixed(2)} bits`;
    this.canvas.ariaValueMin = 0;
    this.canvas.ariaValueMax = video.frames - 1;
    this.canvas.ariaValueNow = position;
    this.canvas.ariaValueText = `frame ${position}, ${this.store.kind(position)}${known}`;
  }

  #plan() {
    if (this.#isDue) return;
    this.#isDue = true;
    requestAnimationFrame(() => {
      this.#isDue = false;
      this.#draw();
      this.#showPosition();
    });
  }

  #draw() {
    const { kinds, uncertainty, video } = this.store;
    const context = this.canvas.getContext("2d");
    const [width, height] = [this.canvas.width / devicePixelRatio, this.canvas.height / devicePixelRatio];
    const style = getComputedStyle(this.canvas);
    const colour = (name) => style.getPropertyValue(name);
    const x = (number) => (number / video.frames) * width;
    context.setTransform(devicePixelRatio, 0, 0, devicePixelRatio, 0, 0);
    context.clearRect(0, 0, width, height);

    // The row of masks: a thin line without, a bar for propagated ones, a diamond for annotated ones.
    const middle = STATUS * height;
    context.fillStyle = colour("--none");
    context.fillRect(0, middle - 1, width, 2);
    context.fillStyle = colour("--propagated");
    for (let n = 0; n < kinds.length; n++) {
      if (KINDS[kinds[n]] !== "propagated") continue;
      const start = n;
      while (n + 1 < kinds.length && KINDS[kinds[n + 1]] === "propagated") n++;
      context.fillRect(x(start), middle - 4, Math.max(1, x(n + 1) - x(start)), 8);
    }

    // The curve of the uncertainty: the highest value in each column of pixels.
    const known = uncertainty.filter((value) => !Number.isNaN(value));
    const low = known.reduce((least, value) => Math.min(least, value), Infinity);
    const span = Math.max(LEAST_SPAN, known.reduce((most, value) => Math.max(most, value), -Infinity) - low);
    const curve = CURVE * height;
    const y = (value) => curve - ((value - low) / span) * (curve - 12);
    const columns = new Map();
    uncertainty.forEach((value, n) => {
      if (Number.isNaN(value) || KINDS[kinds[n]] !== "propagated") return;
      const column = Math.floor(x(n + 0.5));
      columns.set(column, Math.max(columns.get(column) ?? 0, value));
    });
    const gap = Math.max(1, x(1)) + 1; // wider ones hold frames without a value
    context.beginPath();
    let last = -Infinity;
    for (const [column, value] of columns) {
      if (column - last > gap) context.moveTo(column - 1, y(value));
      context.lineTo(column, y(value));
      last = column;
    }
    context.strokeStyle = colour("--curve");
    context.lineWidth = 1.5;
    context.stroke();
    context.fillStyle = colour("--curve");
    for (const n of this.store.uncertainFrames()) {
      const [at, tip] = [x(n + 0.5), y(uncertainty[n]) - 9];
      context.beginPath();
      context.moveTo(at, tip);
      context.lineTo(at + 4, tip + 7);
      context.lineTo(at - 4, tip + 7);
      context.fill();
    }

    for (let n = 0; n < kinds.length; n++) {
      if (KINDS[kinds[n]] !== "annotated") continue;
      const at = x(n + 0.5);
      context.beginPath();
      for (const [dx, dy] of [[0, -7], [7, 0], [0, 7], [-7, 0]]) context.lineTo(at + dx, middle + dy);
      context.closePath();
      context.fillStyle = colour("--annotated");
      context.fill();
      context.strokeStyle = colour("--page");
      context.stroke();
    }
  }
}
