// The tools: which one is chosen, its size, its marks on the stage, and the bar that finishes or drops its work.

import { Brush } from "./brush.js";
import { Box, Scribbles } from "./grabcut.js";
import { Polygon } from "./polygon.js";

const SIZE_STEP = 1.25;
const element = (id) => document.getElementById(id);

export class Tools {
  #tools;
  #name = "brush";
  #hovered = null;
  #isDown = false;

  /**
   * @param store the project.
   * @param view the stage.
   * @param editing changes the mask.
   * @param notify shows a sentence to the user.
   */
  constructor(store, view, editing, notify) {
    Object.assign(this, { store, view, notify });
    this.#tools = {
      brush: new Brush(this, editing, false),
      eraser: new Brush(this, editing, true),
      polygon: new Polygon(this, editing),
      box: new Box(this, editing),
      scribbles: new Scribbles(this, editing),
    };
    for (const name of Object.keys(this.#tools)) {
      element(`tool-${name}`).addEventListener("click", () => this.choose(name));
    }
    this.sizeInput = element("brush-size");
    this.sizeInput.value = Math.round(Math.min(view.size.width, view.size.height) / 20);
    this.sizeInput.addEventListener("input", () => this.#showSize());
    element("apply").addEventListener("click", () => this.apply());
    element("cancel").addEventListener("click", () => this.leave());
    view.drawMarks = (context) => this.#draw(context);
    this.#showSize();
    this.choose("brush");
  }

  get #tool() {
    return this.#tools[this.#name];
  }

  /** Choose a tool by its name. */
  choose(name) {
    this.leave();
    this.#name = name;
    for (const each of Object.keys(this.#tools)) element(`tool-${each}`).ariaPressed = each === name;
    element("brush-row").hidden = !this.#tool.isBrush;
    element("outside-row").hidden = name !== "scribbles";
    element("tool-hint").textContent = this.#tool.hint;
    this.changed();
  }

  /** Half the width of the brush, in pixels of the frame. */
  get radius() {
    return Number(this.sizeInput.value) / 2;
  }

  /** Make the brush larger (+1) or smaller (−1). */
  changeSize(direction) {
    const size = Number(this.sizeInput.value);
    const changed = direction > 0 ? Math.max(size + 1, size * SIZE_STEP) : Math.min(size - 1, size / SIZE_STEP);
    this.sizeInput.value = Math.round(changed);
    this.#showSize();
  }

  #showSize() {
    element("brush-output").value = this.sizeInput.value;
    this.view.redrawMarks();
  }

  get isOutside() {
    return element("outside").checked;
  }

  /** Whether a tool has begun something that `apply` finishes, or `leave` drops. */
  get isPending() {
    return Boolean(this.#tool.isPending);
  }

  down(point, keys) {
    if (this.store.isLocked) return;
    this.#isDown = true;
    this.#tool.down(point, keys);
    this.view.redrawMarks();
  }

  move(points) {
    if (this.#isDown) this.#tool.move(points);
  }

  up(point) {
    if (this.#isDown) this.#tool.up(point);
    this.#isDown = false;
  }

  cancel() {
    if (this.#isDown) this.#tool.cancel();
    this.#isDown = false;
  }

  /** The pointer is over a point of the frame, or (null) over none. */
  hover(point) {
    this.#hovered = point;
    this.#tool.hover?.(point);
    this.view.redrawMarks();
  }

  apply() {
    this.#tool.apply?.();
  }

  /** Drop what the tool has begun. */
  leave() {
    this.cancel();
    this.#tool.leave?.();
  }

  /** Take back the last corner or scribble. Returns whether there was one. */
  back() {
    if (!this.isPending || !this.#tool.back) return false;
    this.#tool.back();
    return true;
  }

  /** A tool has begun or ended something: show the bar with its buttons. */
  changed() {
    const { isPending, text, canApply, apply } = this.#tool;
    element("actions").hidden = !isPending;
    if (isPending) element("actions-text").textContent = text;
    element("apply").hidden = !apply;
    element("apply").disabled = !canApply;
    this.view.redrawMarks();
    this.store.emit("tool");
  }

  /** Draw a line that shows on every picture. */
  line(context, path) {
    context.lineWidth = 3;
    context.strokeStyle = "rgb(0 0 0 / 60%)";
    context.stroke(path);
    context.lineWidth = 1.25;
    context.strokeStyle = "#fff";
    context.stroke(path);
  }

  #draw(context) {
    this.#tool.draw(context, this.view);
    if (this.#hovered && this.#tool.isBrush && !this.store.isLocked) {
      const { x, y } = this.view.toStage(this.#hovered);
      const circle = new Path2D();
      circle.arc(x, y, Math.max(2.5, this.radius * this.view.scale), 0, 2 * Math.PI);
      this.line(context, circle);
    }
  }
}
