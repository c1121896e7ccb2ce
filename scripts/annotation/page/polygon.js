// The polygon tool: clicks make corners; the polygon is filled when it is closed.

import { polygonSpans } from "./raster.js";

const NEAR = 10; // CSS pixels: a click this close to the first corner closes the polygon
const DOUBLE = 400; // ms between the clicks of a double click
const SAME = 5; // CSS pixels between the clicks of a double click; corners that are set fast lie farther apart

export class Polygon {
  hint = "Click the corners. Enter, a double click or a click on the first corner closes the polygon.";
  #open = new Map(); // frame → the corners of the polygon that is not closed yet
  #pointer = null;
  #clicked = -Infinity; // when

  constructor(tools, editing) {
    Object.assign(this, { tools, editing });
  }

  get #corners() {
    return this.#open.get(this.editing.shown.number) ?? [];
  }

  #set(corners) {
    if (corners.length) this.#open.set(this.editing.shown.number, corners);
    else this.#open.delete(this.editing.shown.number);
    this.tools.changed();
  }

  get isPending() {
    return this.#corners.length > 0;
  }

  get text() {
    return this.canApply ? `${this.#corners.length} corners` : "Click at least three corners.";
  }

  get canApply() {
    return this.#corners.length > 2;
  }

  #isWithin(distance, point, corner) {
    return this.tools.view.scale * Math.hypot(point.x - corner.x, point.y - corner.y) < distance;
  }

  down(point) {
    const now = performance.now();
    const isDouble = now - this.#clicked < DOUBLE && this.#isWithin(SAME, point, this.#corners.at(-1) ?? point);
    this.#clicked = now;
    const closes = this.canApply && (isDouble || this.#isWithin(NEAR, point, this.#corners[0]));
    if (closes) return this.apply();
    if (isDouble && this.isPending) return;
    this.#pointer = point;
    this.#set([...this.#corners, point]);
  }

  move(points) {
    this.hover(points.at(-1));
  }

  up() {}

  hover(point) {
    this.#pointer = point;
  }

  /** Fill the polygon. */
  apply() {
    if (!this.canApply) return;
    const edit = this.editing.begin();
    if (!edit) return;
    const current = this.editing.currentId();
    edit.apply(polygonSpans(this.#corners), () => current);
    edit.commit();
    this.drop();
  }

  /** Remove the last corner. */
  back() {
    this.#set(this.#corners.slice(0, -1));
  }

  cancel() {}

  /** Discard the polygon. */
  drop() {
    this.#clicked = -Infinity;
    this.#set([]);
  }

  draw(context, view) {
    if (!this.isPending) return;
    const corners = this.#corners.map((corner) => view.toStage(corner));
    const path = new Path2D();
    for (const { x, y } of corners) path.lineTo(x, y);
    if (this.#pointer) {
      const { x, y } = view.toStage(this.#pointer);
      path.lineTo(x, y);
    }
    if (this.canApply) path.closePath();
    view.line(context, path);
    corners.forEach(({ x, y }, index) => {
      const dot = new Path2D();
      dot.arc(x, y, index ? 3.5 : 5.5, 0, 2 * Math.PI);
      context.fillStyle = "#fff";
      context.fill(dot);
      view.line(context, dot);
    });
  }
}
