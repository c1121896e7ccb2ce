// Mouse, pen and finger on the stage: strokes go to the tools; panning, pinching and the wheel go to the view.

const WHEEL_SPEED = 0.0015; // of zooming, for each pixel that the wheel scrolls
const LINE = 16; // pixels for wheels that count lines
const PEN_ERASER = 32; // in `buttons`: the other end of the pen

export class Pointer {
  isSpaceDown = false;
  hasMoved = false; // whether the pointer was pressed since the space bar is down
  #fingers = new Map(); // pointer id → position on the stage
  #gesture = null; // what the pointers do: "draw" or "pan"
  #owner = null; // the pointer that draws or pans
  #last = null; // its last position
  #hasPen = false;

  /**
   * @param view the stage.
   * @param tools get `down`, `move`, `up`, `cancel` and `hover`, with points in pixels of the frame.
   * @param onTouch is called when the user starts to work on the canvas.
   */
  constructor(view, tools, onTouch) {
    Object.assign(this, { view, tools, onTouch });
    const canvas = view.marks;
    canvas.addEventListener("pointerdown", (event) => this.#down(event));
    canvas.addEventListener("pointermove", (event) => this.#move(event));
    canvas.addEventListener("pointerup", (event) => this.#up(event));
    for (const type of ["pointercancel", "lostpointercapture"]) {
      canvas.addEventListener(type, (event) => this.#lost(event));
    }
    canvas.addEventListener("pointerleave", () => tools.hover(null));
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    canvas.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
  }

  #point(event) {
    return this.view.toFrame(this.view.ofEvent(event));
  }

  #down(event) {
    event.preventDefault(); // no text is selected
    document.activeElement?.blur(); // keys belong to the canvas now, and a name in the list of objects is complete
    this.view.marks.setPointerCapture(event.pointerId);
    this.hasMoved = true;
    this.onTouch();
    if (event.pointerType === "pen") this.#hasPen = true;
    if (event.pointerType === "touch") {
      this.#fingers.set(event.pointerId, this.view.ofEvent(event));
      if (this.#fingers.size > 1) {
        if (this.#gesture === "draw") this.tools.cancel(); // the first finger of two has drawn a dot
        this.#gesture = "pan";
        return;
      }
    }
    if (this.#gesture) return; // another pointer is active
    // The hand of a pen user touches the screen, so fingers only move the frame.
    const isPan = event.button === 1 || this.isSpaceDown || (event.pointerType === "touch" && this.#hasPen);
    const erases = Boolean(event.buttons & PEN_ERASER);
    if (!isPan && event.button !== 0 && !erases) return;
    this.#owner = event.pointerId;
    this.#last = this.view.ofEvent(event);
    this.#gesture = isPan ? "pan" : "draw";
    this.showCursor();
    if (!isPan) this.tools.down(this.#point(event), { shift: event.shiftKey, erases });
  }

  #move(event) {
    if (event.pointerType !== "touch") this.tools.hover(this.#point(event));
    if (event.pointerType === "touch" && this.#gesture === "pan") return this.#pinch(event);
    if (event.pointerId !== this.#owner) return;
    if (this.#gesture === "pan") {
      const position = this.view.ofEvent(event);
      this.view.panBy(position.x - this.#last.x, position.y - this.#last.y);
      this.#last = position;
    } else if (this.#gesture === "draw") {
      const events = event.getCoalescedEvents?.() ?? [];
      this.tools.move((events.length ? events : [event]).map((each) => this.#point(each)));
    }
  }

  /** One finger pans, two fingers pan and zoom about their middle. */
  #pinch(event) {
    if (!this.#fingers.has(event.pointerId)) return;
    const middleAndSpread = () => {
      const [a, b = a] = [...this.#fingers.values()];
      return { x: (a.x + b.x) / 2, y: (a.y + b.y) / 2, spread: Math.hypot(a.x - b.x, a.y - b.y) };
    };
    const before = middleAndSpread();
    this.#fingers.set(event.pointerId, this.view.ofEvent(event));
    const after = middleAndSpread();
    this.view.panBy(after.x - before.x, after.y - before.y);
    if (before.spread && after.spread) this.view.zoomBy(after.spread / before.spread, after);
  }

  #up(event) {
    if (event.pointerId === this.#owner && this.#gesture === "draw") this.tools.up(this.#point(event));
    this.#end(event);
  }

  #lost(event) {
    if (event.pointerId === this.#owner && this.#gesture === "draw") this.tools.cancel();
    this.#end(event);
  }

  #end(event) {
    this.#fingers.delete(event.pointerId);
    if (event.pointerId === this.#owner) this.#owner = null;
    if (this.#owner === null && this.#fingers.size === 0) this.#gesture = null;
    this.showCursor();
  }

  #wheel(event) {
    event.preventDefault();
    const pixels = event.deltaMode === WheelEvent.DOM_DELTA_PIXEL ? event.deltaY : LINE * event.deltaY;
    this.view.zoomBy(Math.exp(-WHEEL_SPEED * Math.max(-400, Math.min(400, pixels))), this.view.ofEvent(event));
    this.tools.hover(this.#point(event));
  }

  /** Show by the cursor whether a press would pan. */
  showCursor() {
    const isGrabbing = this.#gesture === "pan";
    this.view.marks.style.cursor = isGrabbing ? "grabbing" : this.isSpaceDown ? "grab" : "";
  }
}
