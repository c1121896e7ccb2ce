// The overlay of a mask: objects in their colours, with contours.

import { clipped } from "./raster.js";

const EDGE_LIGHT = 0.5; // the fraction of white in a contour's colour, so that dark colours show on dark pictures

const channels = (colour) => [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));

/** The colour of an object's contour. */
export function contourColour(colour) {
  const light = channels(colour).map((value) => Math.round(value + EDGE_LIGHT * (255 - value)));
  return `rgb(${light.join(" ")})`;
}

const packed = ([red, green, blue], alpha) => ((alpha << 24) | (blue << 16) | (green << 8) | red) >>> 0;

export class Overlay {
  #inside = new Uint32Array(256); // id → RGBA
  #edge = new Uint32Array(256);

  constructor(width, height) {
    this.size = { width, height };
    this.canvas = new OffscreenCanvas(width, height);
    this.context = this.canvas.getContext("2d");
    this.image = new ImageData(width, height);
    this.pixels = new Uint32Array(this.image.data.buffer);
  }

  /**
   * Set the look of masks.
   * @param objects the objects, as the server describes them.
   * @param opacity of the inside, 0 to 1.
   * @param contours whether the pixels at the edge of an object are opaque.
   */
  setLook(objects, opacity, contours) {
    const alpha = Math.round(255 * opacity);
    this.#inside.fill(packed([128, 128, 128], alpha)).fill(0, 0, 1);
    this.#edge.set(this.#inside);
    for (const { id, colour, visible } of objects) {
      this.#inside[id] = visible ? packed(channels(colour), alpha) : 0;
      const light = contourColour(colour).match(/\d+/g).map(Number);
      this.#edge[id] = visible && contours ? packed(light, 255) : this.#inside[id];
    }
  }

  /** Draw a rectangle of a mask. */
  paint(ids, rect) {
    const { width, height } = this.size;
    const { left, top, right, bottom } = clipped(rect, this.size, 1); // the contours of the neighbours change as well
    for (let y = top; y < bottom; y++) {
      for (let x = left, i = y * width + left; x < right; x++, i++) {
        const id = ids[i];
        const isEdge =
          id &&
          ((x > 0 && ids[i - 1] !== id) ||
            (x < width - 1 && ids[i + 1] !== id) ||
            (y > 0 && ids[i - width] !== id) ||
            (y < height - 1 && ids[i + width] !== id));
        this.pixels[i] = isEdge ? this.#edge[id] : this.#inside[id];
      }
    }
    this.context.putImageData(this.image, 0, 0, left, top, right - left, bottom - top);
  }

  /** The lines between pixels of different ids in a rectangle, as a path for each id, in pixels of the frame. */
  lines(ids, rect) {
    const { width } = this.size;
    const { left, top, right, bottom } = clipped(rect, this.size);
    const paths = new Map();
    const add = (one, other, x0, y0, x1, y1) => {
      if (one === other) return;
      for (const id of [one, other]) {
        if (!id) continue;
        if (!paths.has(id)) paths.set(id, new Path2D());
        const path = paths.get(id);
        path.moveTo(x0, y0);
        path.lineTo(x1, y1);
      }
    };
    for (let y = top; y < bottom; y++) {
      for (let x = left, i = y * width + left; x < right; x++, i++) {
        if (x > left) add(ids[i], ids[i - 1], x, y, x, y + 1);
        if (y > top) add(ids[i], ids[i - width], x, y, x + 1, y);
      }
    }
    return paths;
  }
}
