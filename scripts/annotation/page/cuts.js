// Boxes, clicks and scribbles. The server segments the marked object; each response changes the mask.

import * as api from "./api.js";
import { brushSpans, clipped } from "./raster.js";

export const CLICK_RADIUS = 1 / 60; // of a click, as a part of the frame's short side
const LEAST = 3; // pixels: a smaller box is ignored
const REST = 300; // ms on a frame until the server prepares it
const FULL = 0.92; // of a box: an object that takes more of it than an ellipse by far has mostly not been found
const MARGIN = 0.05; // of the longer side of a box: strokes may extend the object by it beyond its box
const MOST_STROKES = 200; // of a frame that are sent again; the oldest are dropped first
// The bits of a pixel, as the server takes them.
const [INSIDE, OUTSIDE, MASK, EARLIER_INSIDE, EARLIER_OUTSIDE, OTHER, BEYOND] = [1, 2, 4, 8, 16, 32, 64];

/**
 * The cuts that wait for the server, in order. A cut has `frame`, `object` (id), and either `box` (left, top, right,
 * bottom) or strokes: `points`, `radius` and `isInside`. A cut changes the mask of its frame, even if another frame is
 * shown, and only those pixels that the server has changed, so no stroke that is drawn meanwhile gets lost.
 */
export class Cuts {
  #waiting = []; // the first ones may be under way
  #controller = null;
  #strokes = new Map(); // frame → the strokes that its mask comes from
  #boxes = new Map(); // frame and object → the box that its mask comes from

  /**
   * @param store the project.
   * @param editing changes masks.
   * @param notify shows a sentence to the user.
   */
  constructor(store, editing, notify) {
    Object.assign(this, { store, editing, notify });
    let timer = 0;
    store.on("shown", () => {
      clearTimeout(timer);
      timer = setTimeout(() => this.#prepare(), REST);
    });
  }

  /** Prepare the frame on the canvas, unless the server has other work. */
  async #prepare() {
    if ((this.store.job && !this.store.isUnpacking) || this.store.isLocked) return;
    try {
      await api.prepareCut(this.editing.shown.number);
    } catch {
      // The first cut will report the error.
    }
  }

  get isBusy() {
    return this.#waiting.length > 0;
  }

  /** The cuts that wait, in one frame. */
  of(frame) {
    return this.#waiting.filter((cut) => cut.frame === frame);
  }

  /** Ask the server for a cut in the frame on the canvas. */
  add(cut) {
    if (this.store.isLocked || this.store.position !== this.editing.shown.number) return;
    this.#waiting.push({ ...cut, frame: this.editing.shown.number, object: this.editing.currentId() });
    this.#changed();
    if (!this.#controller) this.#run();
  }

  /** Drop the cut that was added last. Returns whether there was one. */
  back() {
    if (!this.isBusy) return false;
    if (this.#waiting.length === 1) this.#controller?.abort();
    this.#waiting.pop();
    this.#changed();
    return true;
  }

  /** Drop all cuts that wait. */
  drop() {
    while (this.back());
  }

  /** Settles when no cut waits. */
  async idle() {
    while (this.isBusy || this.#controller) await new Promise((resolve) => setTimeout(resolve, 10));
  }

  #changed() {
    this.store.emit("cuts");
  }

  async #run() {
    while (this.isBusy) {
      const [first] = this.#waiting;
      // Strokes that were made while the server was busy go together.
      const other = this.#waiting.findIndex(
        (cut) => cut.box || cut.frame !== first.frame || cut.object !== first.object,
      );
      const cuts = first.box || other === 0 ? [first] : this.#waiting.slice(0, other < 0 ? undefined : other);
      this.#controller = new AbortController();
      try {
        await this.#cut(cuts, this.#controller.signal);
      } catch (error) {
        if (error.name !== "AbortError") this.store.emit("error", error);
      }
      this.#waiting = this.#waiting.filter((cut) => !cuts.includes(cut));
      this.#controller = null;
      this.#changed();
    }
  }

  async #cut(cuts, signal) {
    const { frame, object, box } = cuts[0];
    const { size } = this.editing;
    const before = (await this.editing.entry(frame)).ids.slice();
    const marks = box ? null : this.#marks(cuts, before);
    const found = await (box ? api.cutBox(frame, box, signal) : api.cutMarks(frame, marks, signal));
    const entry = await this.editing.entry(frame);
    if (signal.aborted) return;
    if (!found.includes(1) && (box || cuts.some((cut) => cut.isInside))) {
      this.notify("No object was found there. Try a larger box, or click inside the object.");
      return;
    }
    const [left, top, right, bottom] = box ?? [0, 0, size.width, size.height];
    const rows = Array.from({ length: bottom - top }, (_, row) => ({ y: top + row, left, right }));
    const edit = this.editing.open(entry);
    edit.apply(rows, (id, i) => {
      const had = before[i] === object;
      if (found[i] && !had) return id && !(marks?.[i] & INSIDE) ? id : object;
      return had && !found[i] && id === object ? 0 : id;
    });
    edit.commit();
    if (box) this.#boxes.set(`${frame} ${object}`, box);
    const area = (right - left) * (bottom - top);
    if (box && found.reduce((sum, id) => sum + id, 0) > FULL * area) {
      this.notify(
        "The mask fills its box, so the outline is probably wrong. Undo it and click inside the object (K), or draw a " +
          "polygon (P). A box that fits more closely can help, too.",
      );
    }
    if (!box) this.#strokes.set(frame, [...(this.#strokes.get(frame) ?? []), ...cuts].slice(-MOST_STROKES));
  }

  /** The strokes, the mask, and the earlier strokes that agree with the mask: a byte of bits for each pixel. */
  #marks(cuts, ids) {
    const [{ frame, object }] = cuts;
    const marks = ids.map((id) => (id === object ? MASK : id ? OTHER : 0));
    const draw = ({ points, radius }, change) => {
      points.forEach((point, index) => {
        for (const { y, ...span } of brushSpans(points[index - 1] ?? point, point, radius)) {
          const { left, right, top, bottom } = clipped({ ...span, top: y, bottom: y + 1 }, this.editing.size);
          if (top >= bottom) continue;
          for (let x = left; x < right; x++) {
            const i = y * this.editing.size.width + x;
            marks[i] = change(marks[i]);
          }
        }
      });
    };
    // Later changes by undo, the eraser or the brush override the stroke.
    for (const stroke of this.#strokes.get(frame) ?? []) {
      if (stroke.object !== object) continue;
      const bit = stroke.isInside ? EARLIER_INSIDE : EARLIER_OUTSIDE;
      draw(stroke, (mark) => (Boolean(mark & MASK) === stroke.isInside ? mark | bit : mark));
    }
    for (const stroke of cuts) {
      const bit = stroke.isInside ? INSIDE : OUTSIDE;
      draw(stroke, (mark) => (mark & ~(INSIDE | OUTSIDE)) | bit);
    }
    this.#limit(marks, `${frame} ${object}`);
    return marks;
  }

  /** Mark what is beyond the object's box, unless the object or a new stroke inside of the object is there. */
  #limit(marks, key) {
    const box = this.#boxes.get(key);
    if (!box) return;
    const [left, top, right, bottom] = box;
    const margin = MARGIN * Math.max(right - left, bottom - top);
    const { width } = this.editing.size;
    const isBeyond = (i) => {
      const [x, y] = [i % width, Math.floor(i / width)];
      return x < left - margin || x >= right + margin || y < top - margin || y >= bottom + margin;
    };
    const leaves = (mark, i) => mark & (INSIDE | MASK) && isBeyond(i);
    if (!marks.some((mark) => mark & MASK) || marks.some(leaves)) this.#boxes.delete(key);
    else for (let i = 0; i < marks.length; i++) if (isBeyond(i)) marks[i] |= BEYOND;
  }
}

/** A box: the object found inside replaces the part of the selected object there. */
export class Box {
  hint = "Drag a box around the object.";
  #from = null;
  #to = null;

  constructor(tools, cuts, size) {
    Object.assign(this, { tools, cuts, size });
  }

  down(point) {
    [this.#from, this.#to] = [point, point];
  }

  move(points) {
    this.#to = points.at(-1);
    this.tools.view.redrawMarks();
  }

  up() {
    const [a, b] = [this.#from, this.#to];
    this.cancel();
    if (!a) return;
    const { left, top, right, bottom } = clipped(
      {
        left: Math.floor(Math.min(a.x, b.x)),
        top: Math.floor(Math.min(a.y, b.y)),
        right: Math.ceil(Math.max(a.x, b.x)),
        bottom: Math.ceil(Math.max(a.y, b.y)),
      },
      this.size,
    );
    if (right - left >= LEAST && bottom - top >= LEAST) this.cuts.add({ box: [left, top, right, bottom] });
  }

  cancel() {
    this.#from = null;
    this.tools.view.redrawMarks();
  }

  draw(context, view) {
    if (this.#from) drawBox(context, view, this.#from, this.#to);
  }
}

/** Strokes of the brush, or single clicks, inside and outside of the object. */
export class Strokes {
  #stroke = null;

  constructor(tools, cuts, isClick) {
    Object.assign(this, { tools, cuts, isClick, isBrush: !isClick });
    this.hint = isClick
      ? "Click missing parts of the object, and with Shift wrong parts."
      : "Draw lines over missing parts of the object, and with Shift over wrong parts.";
  }

  down(point, { shift, erases }) {
    const isInside = !(shift || erases || this.tools.isOutside);
    this.#stroke = { points: [point], radius: this.isClick ? this.tools.clickRadius : this.tools.radius, isInside };
  }

  move(points) {
    if (!this.isClick) this.#stroke.points.push(...points);
    this.tools.view.redrawMarks();
  }

  up() {
    if (this.#stroke) this.cuts.add(this.#stroke);
    this.#stroke = null;
  }

  cancel() {
    this.#stroke = null;
    this.tools.view.redrawMarks();
  }

  draw(context, view) {
    if (this.#stroke) drawStroke(context, view, this.#stroke);
  }
}

/** Draw the cuts of a frame that wait for the server. */
export function drawCuts(context, view, cuts) {
  for (const cut of cuts) {
    if (cut.points) drawStroke(context, view, cut);
    else {
      const [left, top, right, bottom] = cut.box;
      drawBox(context, view, { x: left, y: top }, { x: right, y: bottom });
    }
  }
}

function drawBox(context, view, from, to) {
  const [a, b] = [view.toStage(from), view.toStage(to)];
  const path = new Path2D();
  path.rect(Math.min(a.x, b.x), Math.min(a.y, b.y), Math.abs(a.x - b.x), Math.abs(a.y - b.y));
  view.line(context, path);
}

function drawStroke(context, view, { points, radius, isInside }) {
  const path = new Path2D();
  for (const { x, y } of points.map((point) => view.toStage(point))) path.lineTo(x, y);
  if (points.length === 1) path.closePath();
  context.save();
  context.lineCap = context.lineJoin = "round";
  context.globalAlpha = 0.75;
  context.lineWidth = Math.max(2, 2 * radius * view.scale);
  context.strokeStyle = isInside ? "#56b4e9" : "#d55e00";
  context.stroke(path);
  // Strokes outside have a dashed line in their middle, for colour-blind users.
  context.globalAlpha = 1;
  context.lineWidth = 1.5;
  context.strokeStyle = "#fff";
  if (!isInside) context.setLineDash([5, 5]);
  context.stroke(path);
  context.restore();
}
