// Brush and eraser.

import { brushSpans } from "./raster.js";

/** A tool has `down`, `move`, `up` and `cancel` for strokes, and `draw` for its marks. */
export class Brush {
  isBrush = true;
  isPainting = true; // the mask changes during the stroke
  #edit = null;
  #last = null;
  #rule = null;

  /**
   * @param tools gives the radius.
   * @param editing changes the mask.
   * @param erases whether this is the eraser.
   */
  constructor(tools, editing, erases) {
    Object.assign(this, { tools, editing, erases });
    this.hint = erases
      ? "Drag over wrong pixels of the selected object. Shift erases all objects."
      : "Drag over the object. [ and ] change the size.";
  }

  down(point, { shift, erases }) {
    this.#edit = this.editing.begin();
    if (!this.#edit) return;
    const isErasing = this.erases || erases;
    if (isErasing) {
      const current = this.editing.store.current;
      this.#rule = (id) => (shift || id === current ? 0 : id);
    } else {
      const current = this.editing.currentId();
      this.#rule = () => current;
    }
    this.#last = point;
    this.move([point]);
  }

  move(points) {
    for (const point of points) {
      this.#edit?.apply(brushSpans(this.#last, point, this.tools.radius), this.#rule);
      this.#last = point;
    }
  }

  up() {
    this.#edit?.commit();
    this.#edit = null;
  }

  cancel() {
    this.#edit?.cancel();
    this.#edit = null;
  }

  draw() {}
}
