// The tools: selection, size, marks on the stage, and the buttons that apply or discard pending edits.

import { Brush } from "./brush.js";
import { Box, CLICK_RADIUS, Strokes, drawCuts } from "./cuts.js";
import { Polygon } from "./polygon.js";

const SIZE_STEP = 1.25;
const element = (id) => document.getElementById(id);

export class Tools {
  #tools;
  #name = "box";
  #hovered = null;
  #isDown = false;

  /**
   * @param store the project.
   * @param view the stage.
   * @param editing changes the mask.
   * @param cuts asks the server for objects.
   */
  constructor(store, view, editing, cuts) {
    Object.assign(this, { store, view, editing, cuts });
    this.#tools = {
      box: new Box(this, cuts, editing.size),
      click: new Strokes(this, cuts, true),
      scribbles: new Strokes(this, cuts, false),
      brush: new Brush(this, editing, false),
      eraser: new Brush(this, editing, true),
      polygon: new Polygon(this, editing),
    };
    for (const name of Object.keys(this.#tools)) {
      element(`tool-${name}`).addEventListener("click", () => this.select(name));
    }
    this.sizeInput = element("brush-size");
    this.sizeInput.value = Math.round(Math.min(view.size.width, view.size.height) / 20);
    this.sizeInput.addEventListener("input", () => this.#showSize());
    element("apply").addEventListener("click", () => this.apply());
    element("cancel").addEventListener("click", () => this.drop());
    store.on("cuts", () => this.changed());
    store.on("shown", () => this.changed()); // each frame has its own polygon
    view.drawMarks = (context) => this.#draw(context);
    this.#showSize();
    this.select(this.#name);
  }

  get #tool() {
    return this.#tools[this.#name];
  }

  /** Select a tool by its name. */
  select(name) {
    this.cancel();
    this.#name = name;
    for (const each of Object.keys(this.#tools)) element(`tool-${each}`).ariaPressed = each === name;
    element("brush-row").hidden = !this.#tool.isBrush;
    element("outside-row").hidden = !["click", "scribbles"].includes(name);
    element("tool-hint").textContent = this.#tool.hint;
    this.changed();
  }

  /** Half the width of the brush, in pixels of the frame. */
  get radius() {
    return Number(this.sizeInput.value) / 2;
  }

  /** The radius of a click, in pixels of the frame. */
  get clickRadius() {
    return CLICK_RADIUS * Math.min(this.view.size.width, this.view.size.height);
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

  /** Whether there is a pending edit that `apply` finishes, or `drop` discards. */
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

  /** End the current stroke, because another frame is shown. */
  end() {
    if (this.#isDown && this.#tool.isPainting) this.up();
    else this.cancel();
  }

  /**
   * Finish pending edits in this frame, and wait for the server. Returns whether all are finished; a polygon of two
   * corners cannot be.
   */
  async finish() {
    this.end();
    const polygon = this.#tools.polygon;
    if (polygon.isPending && !polygon.canApply) return false;
    polygon.apply();
    await this.cuts.idle();
    return true;
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

  /** Discard pending edits: the stroke, the polygon, or requests to the server. Returns whether there were any. */
  drop() {
    const isAny = this.#isDown || this.isPending || this.cuts.isBusy;
    this.cancel();
    if (this.isPending) this.#tool.drop();
    else this.cuts.drop();
    return isAny;
  }

  /** Undo the last corner of the polygon, or the last request to the server. Returns whether there was any. */
  back() {
    if (!this.isPending) return this.cuts.back();
    this.#tool.back();
    return true;
  }

  /** Show the buttons for pending edits. */
  changed() {
    const { isPending, text, canApply, apply } = this.#tool;
    const isBusy = this.cuts.isBusy;
    element("actions").hidden = !isPending && !isBusy;
    element("actions-text").textContent = isPending ? text : isBusy ? "Finding the object …" : "";
    element("apply").hidden = !isPending || !apply;
    element("apply").disabled = !canApply;
    this.view.redrawMarks();
    this.store.emit("tool");
  }

  #draw(context) {
    drawCuts(context, this.view, this.cuts.of(this.editing.shown.number));
    this.#tool.draw(context, this.view);
    if (this.#hovered && this.#tool.isBrush && !this.store.isLocked) {
      const { x, y } = this.view.toStage(this.#hovered);
      const circle = new Path2D();
      circle.arc(x, y, Math.max(2.5, this.radius * this.view.scale), 0, 2 * Math.PI);
      this.view.line(context, circle);
    }
  }
}
