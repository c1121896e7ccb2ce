// The stage: a frame with its mask, and the marks of the tools above it, zoomed and panned.

import { Overlay, contourColour } from "./overlay.js";
import { clipped, emptyRect, union } from "./raster.js";

const SMOOTH_BELOW = 2; // screen pixels for a pixel of the frame: from this zoom on pixels are crisp squares
const LINES_FROM = 3; // from this zoom on contours are thin lines between the pixels
const MOST_ZOOM = 40;
const MARGIN = 8; // CSS pixels around the whole frame

export class View {
  /** Draws the marks of the tools: (context, view) → nothing. Coordinates are CSS pixels of the stage. */
  drawMarks = () => {};
  scale = 1; // CSS pixels for a pixel of the frame
  #x = 0; // the frame's left top corner, in CSS pixels of the stage
  #y = 0;
  #isFitted = true;
  #bitmap = null;
  #ids = null;
  #objects = [];
  #hasContours = true;
  #opacity = 0.5;
  #stale = emptyRect(); // of the overlay
  #isPictureDue = false;
  #areMarksDue = false;
  #request = 0;

  /**
   * @param stage the element that holds the two canvases.
   * @param size width and height of the frames.
   * @param onZoom is called when the zoom changes.
   */
  constructor(stage, { width, height }, onZoom) {
    Object.assign(this, { stage, size: { width, height }, onZoom });
    this.all = { left: 0, top: 0, right: width, bottom: height };
    this.picture = stage.querySelector("#picture");
    this.marks = stage.querySelector("#marks");
    this.overlay = new Overlay(width, height);
    new ResizeObserver(() => this.#resize()).observe(stage);
    this.#resize();
  }

  #resize() {
    this.ratio = devicePixelRatio;
    const { clientWidth, clientHeight } = this.stage;
    for (const canvas of [this.picture, this.marks]) {
      canvas.width = Math.round(clientWidth * this.ratio);
      canvas.height = Math.round(clientHeight * this.ratio);
    }
    if (this.#isFitted) this.fit();
    else this.#move(this.#x, this.#y);
    this.#draw();
  }

  get #fittingScale() {
    const { clientWidth, clientHeight } = this.stage;
    const { width, height } = this.size;
    return Math.max(0.01, Math.min((clientWidth - 2 * MARGIN) / width, (clientHeight - 2 * MARGIN) / height));
  }

  /** Show the whole frame. */
  fit() {
    this.#isFitted = true;
    this.#zoom(this.#fittingScale);
    const { clientWidth, clientHeight } = this.stage;
    const { width, height } = this.size;
    this.#move((clientWidth - this.scale * width) / 2, (clientHeight - this.scale * height) / 2);
  }

  /** Zoom by a factor about a point of the stage, by default its centre. */
  zoomBy(factor, { x, y } = { x: this.stage.clientWidth / 2, y: this.stage.clientHeight / 2 }) {
    const point = this.toFrame({ x, y });
    this.#isFitted = false;
    this.#zoom(Math.max(this.#fittingScale / 2, Math.min(MOST_ZOOM, this.scale * factor)));
    this.#move(x - this.scale * point.x, y - this.scale * point.y);
  }

  #zoom(scale) {
    const hadLines = this.#hasLines;
    this.scale = scale;
    if (hadLines !== this.#hasLines) this.#changeLook();
    this.onZoom(scale);
  }

  /** Move the frame by CSS pixels. */
  panBy(dx, dy) {
    this.#isFitted = false;
    this.#move(this.#x + dx, this.#y + dy);
  }

  #move(x, y) {
    // A part of the frame always stays on the stage.
    const { clientWidth, clientHeight } = this.stage;
    const part = 48;
    this.#x = Math.max(part - this.scale * this.size.width, Math.min(clientWidth - part, x));
    this.#y = Math.max(part - this.scale * this.size.height, Math.min(clientHeight - part, y));
    this.#isPictureDue = true;
    this.redrawMarks();
  }

  /** A pointer event's position on the stage. */
  ofEvent(event) {
    const { left, top } = this.stage.getBoundingClientRect();
    return { x: event.clientX - left, y: event.clientY - top };
  }

  /** From the stage to the frame; whole numbers are the corners of pixels. */
  toFrame({ x, y }) {
    return { x: (x - this.#x) / this.scale, y: (y - this.#y) / this.scale };
  }

  /** From the frame to the stage. */
  toStage({ x, y }) {
    return { x: this.#x + this.scale * x, y: this.#y + this.scale * y };
  }

  /** Show a frame and its mask, or (null) a frame alone, at once. */
  show(bitmap, ids) {
    this.#bitmap = bitmap;
    this.#ids = ids;
    this.#stale = this.all;
    this.#isPictureDue = true;
    this.#draw();
  }

  /** A rectangle of the mask has changed. */
  refresh(rect) {
    this.#stale = union(this.#stale, rect);
    this.#isPictureDue = true;
    this.#plan();
  }

  /** Set the look of masks; see `Overlay.setLook`. */
  setLook(objects, opacity, contours) {
    [this.#objects, this.#opacity, this.#hasContours] = [objects, opacity, contours];
    this.#changeLook();
  }

  get #hasLines() {
    return this.scale >= LINES_FROM;
  }

  #changeLook() {
    this.overlay.setLook(this.#objects, this.#opacity, this.#hasContours && !this.#hasLines);
    this.refresh(this.all);
  }

  /** Draw a line that is visible on every picture. */
  line(context, path) {
    context.lineWidth = 3;
    context.strokeStyle = "rgb(0 0 0 / 60%)";
    context.stroke(path);
    context.lineWidth = 1.25;
    context.strokeStyle = "#fff";
    context.stroke(path);
  }

  /** Redraw the marks of the tools. */
  redrawMarks() {
    this.#areMarksDue = true;
    this.#plan();
  }

  #plan() {
    this.#request ||= requestAnimationFrame(() => this.#draw());
  }

  #draw() {
    cancelAnimationFrame(this.#request);
    this.#request = 0;
    if (this.#isPictureDue && this.#bitmap) this.#drawPicture();
    if (this.#areMarksDue) {
      const context = this.marks.getContext("2d");
      context.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
      context.clearRect(0, 0, this.marks.width, this.marks.height);
      this.drawMarks(context, this);
    }
    this.#isPictureDue = this.#areMarksDue = false;
  }

  #drawPicture() {
    if (this.#ids && this.#stale.left < this.#stale.right) this.overlay.paint(this.#ids, this.#stale);
    this.#stale = emptyRect();
    const context = this.picture.getContext("2d");
    const scale = this.ratio * this.scale;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, this.picture.width, this.picture.height);
    context.setTransform(scale, 0, 0, scale, this.ratio * this.#x, this.ratio * this.#y);
    context.imageSmoothingEnabled = scale < SMOOTH_BELOW;
    context.imageSmoothingQuality = scale < 0.5 ? "medium" : "low"; // of two pixels and more at a time none is left out
    context.drawImage(this.#bitmap, 0, 0);
    if (!this.#ids) return;
    context.drawImage(this.overlay.canvas, 0, 0);
    if (this.#hasLines && this.#hasContours) this.#drawLines(context);
  }

  #drawLines(context) {
    const start = this.toFrame({ x: 0, y: 0 });
    const end = this.toFrame({ x: this.stage.clientWidth, y: this.stage.clientHeight });
    const [left, top] = [Math.floor(start.x), Math.floor(start.y)];
    const seen = { left, top, right: Math.ceil(end.x), bottom: Math.ceil(end.y) };
    context.lineWidth = 2 / this.scale;
    context.lineCap = "square";
    for (const [id, path] of this.overlay.lines(this.#ids, clipped(seen, this.size))) {
      const object = this.#objects.find((each) => each.id === id);
      if (!object?.visible) continue;
      context.strokeStyle = contourColour(object.colour);
      context.stroke(path);
    }
  }
}
