// The tools that let GrabCut find the object: a box around it, or scribbles inside and outside of it.

import * as api from "./api.js";
import { brushSpans, clipped } from "./raster.js";

const LEAST = 3; // pixels: a smaller box is a slip
const [INSIDE, OUTSIDE] = [1, 2]; // as the server takes them

/** The common part: one request, whose result becomes a change of the mask. */
class GrabCut {
  #request = null;

  constructor(tools, editing) {
    Object.assign(this, { tools, editing });
  }

  get isBusy() {
    return this.#request !== null;
  }

  get text() {
    return "GrabCut is at work …";
  }

  /**
   * Ask the server, and change the mask.
   * @param ask the request: (frame, signal) → promise of 1 for each pixel of the object, else 0.
   * @param rows the rows that the result replaces, as spans.
   * @param mayTake whether the object may take a pixel of another object: (index of the pixel) → boolean.
   */
  async run(ask, rows, mayTake) {
    const controller = new AbortController();
    this.#request = controller;
    this.tools.changed();
    const frame = this.editing.shown.number;
    try {
      const found = await ask(frame, controller.signal);
      if (controller.signal.aborted) return;
      if (!found.includes(1)) {
        this.tools.notify("GrabCut found no object there. Try a larger box, or scribbles.");
        return;
      }
      const edit = this.editing.shown.number === frame && this.editing.begin();
      if (!edit) return;
      const current = this.editing.currentId();
      edit.apply(rows, (id, i) => {
        if (found[i]) return !id || id === current || mayTake(i) ? current : id;
        return id === current ? 0 : id;
      });
      edit.commit();
    } catch (error) {
      if (error.name !== "AbortError") this.editing.store.emit("error", error);
    } finally {
      if (this.#request === controller) this.#request = null;
      this.tools.changed();
    }
  }

  /** Drop the request. */
  leave() {
    this.#request?.abort();
    this.#request = null;
    this.tools.changed();
  }

  rows({ left, top, right, bottom }) {
    return Array.from({ length: bottom - top }, (_, row) => ({ y: top + row, left, right }));
  }
}

/** A box: the object that GrabCut finds inside replaces the part of the chosen object there. */
export class Box extends GrabCut {
  hint = "Drag a box around the object. GrabCut finds the object in the box.";
  #from = null;
  #to = null;

  get isPending() {
    return this.isBusy;
  }

  down(point) {
    if (!this.isBusy) [this.#from, this.#to] = [point, point];
  }

  move(points) {
    this.#to = points.at(-1);
    this.tools.view.redrawMarks();
  }

  up() {
    if (!this.#from) return;
    const [a, b] = [this.#from, this.#to];
    this.cancel();
    const box = clipped(
      {
        left: Math.floor(Math.min(a.x, b.x)),
        top: Math.floor(Math.min(a.y, b.y)),
        right: Math.ceil(Math.max(a.x, b.x)),
        bottom: Math.ceil(Math.max(a.y, b.y)),
      },
      this.editing.size,
    );
    if (box.right - box.left < LEAST || box.bottom - box.top < LEAST) return;
    const corners = [box.left, box.top, box.right, box.bottom];
    this.run(
      (frame, signal) => api.grabcutBox(frame, corners, signal),
      this.rows(box),
      () => false,
    );
  }

  cancel() {
    this.#from = null;
    this.tools.view.redrawMarks();
  }

  draw(context, view) {
    if (!this.#from) return;
    const [a, b] = [view.toStage(this.#from), view.toStage(this.#to)];
    const path = new Path2D();
    path.rect(Math.min(a.x, b.x), Math.min(a.y, b.y), Math.abs(a.x - b.x), Math.abs(a.y - b.y));
    this.tools.line(context, path);
  }
}

/** Scribbles: the object that GrabCut finds replaces the chosen object in this frame. */
export class Scribbles extends GrabCut {
  hint = "Draw lines inside the object, and with Shift lines outside. Enter lets GrabCut find the object.";
  isBrush = true;
  #scribbles = []; // of points, radius, mark
  #isDrawing = false;

  get isPending() {
    return this.isBusy || this.#scribbles.length > 0;
  }

  get text() {
    if (this.isBusy) return super.text;
    return this.canApply ? "Apply lets GrabCut find the object." : "Draw a line inside the object as well.";
  }

  get canApply() {
    return !this.isBusy && this.#scribbles.some(({ mark }) => mark === INSIDE);
  }

  down(point, { shift, erases }) {
    if (this.isBusy) return;
    const mark = shift || erases || this.tools.isOutside ? OUTSIDE : INSIDE;
    this.#scribbles.push({ points: [point], radius: this.tools.radius, mark });
    this.#isDrawing = true;
    this.tools.changed();
  }

  move(points) {
    if (!this.#isDrawing) return;
    this.#scribbles.at(-1).points.push(...points);
    this.tools.view.redrawMarks();
  }

  up() {
    this.#isDrawing = false;
  }

  cancel() {
    if (this.#isDrawing) this.back();
  }

  /** Take the last scribble back. */
  back() {
    this.#isDrawing = false;
    if (!this.isBusy) this.#scribbles.pop();
    this.tools.changed();
  }

  async apply() {
    if (!this.canApply) return;
    const { size, shown } = this.editing;
    const { current } = this.editing.store;
    // Pixels of other objects are surely not this object, unless a scribble says otherwise.
    const marks = shown.entry.ids.map((id) => (id && id !== current ? OUTSIDE : 0));
    const isScribbled = new Uint8Array(marks.length);
    for (const { points, radius, mark } of this.#scribbles) {
      points.forEach((point, index) => {
        for (const { y, ...span } of brushSpans(points[index - 1] ?? point, point, radius)) {
          const { left, right, top, bottom } = clipped({ ...span, top: y, bottom: y + 1 }, size);
          if (top >= bottom || left >= right) continue;
          marks.fill(mark, y * size.width + left, y * size.width + right);
          isScribbled.fill(1, y * size.width + left, y * size.width + right);
        }
      });
    }
    await this.run(
      (frame, signal) => api.grabcutMarks(frame, marks, size, signal),
      this.rows(size.all),
      (i) => isScribbled[i],
    );
    this.#scribbles = [];
    this.tools.changed();
  }

  leave() {
    this.#scribbles = [];
    this.#isDrawing = false;
    super.leave();
  }

  draw(context, view) {
    for (const { points, radius, mark } of this.#scribbles) {
      const path = new Path2D();
      for (const { x, y } of points.map((point) => view.toStage(point))) path.lineTo(x, y);
      if (points.length === 1) path.closePath();
      context.save();
      context.lineCap = context.lineJoin = "round";
      context.globalAlpha = 0.75;
      context.lineWidth = Math.max(2, 2 * radius * view.scale);
      context.strokeStyle = mark === INSIDE ? "#56b4e9" : "#d55e00";
      context.stroke(path);
      // Outside scribbles have a dashed line in their middle, for those who do not see the colours apart.
      context.globalAlpha = 1;
      context.lineWidth = 1.5;
      context.strokeStyle = "#fff";
      if (mark === OUTSIDE) context.setLineDash([5, 5]);
      context.stroke(path);
      context.restore();
    }
  }
}
