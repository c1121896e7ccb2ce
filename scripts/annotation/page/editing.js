// Changes of the mask on the canvas: strokes, undo, redo. Every finished change is saved at once.

import { clipped, cut, emptyRect, paste, union } from "./raster.js";
import { ServerError, addObject, changeObject } from "./api.js";

/** A change in progress. It ends with `commit` or `cancel`. */
class Edit {
  #rect = emptyRect();

  constructor(editing, entry) {
    Object.assign(this, { editing, entry, before: entry.ids.slice() });
  }

  /** Give pixels new ids. `spans`: see raster.js; `rule`: (id, index of the pixel) → new id. */
  apply(spans, rule) {
    const { size, view } = this.editing;
    const { ids } = this.entry;
    let changed = emptyRect();
    for (const { y, ...span } of spans) {
      const rect = clipped({ ...span, top: y, bottom: y + 1 }, size);
      if (rect.left >= rect.right || rect.top >= rect.bottom) continue;
      const end = y * size.width + rect.right;
      for (let i = y * size.width + rect.left; i < end; i++) ids[i] = rule(ids[i], i);
      changed = union(changed, rect);
    }
    this.#rect = union(this.#rect, changed);
    if (changed.left < changed.right) view.refresh(changed);
  }

  /** Finish the change: record it for undo, and save it. `kind`: the new kind of the mask. */
  commit(kind = "annotated") {
    const { editing, entry } = this;
    const rect = this.#rect;
    if (rect.left >= rect.right) return this.#end();
    const [before, after] = [cut(this.before, editing.size, rect), cut(entry.ids, editing.size, rect)];
    if (kind === entry.kind && before.every((id, index) => id === after[index])) return this.#end();
    editing.edit = null;
    const uncertainty = editing.store.uncertainty[entry.number];
    editing.history.add(entry.number, { rect, before, after, kindBefore: entry.kind, kindAfter: kind, uncertainty });
    editing.save(entry, kind);
  }

  /** Revert the change. */
  cancel() {
    this.entry.ids.set(this.before);
    this.editing.view.refresh(this.editing.size.all);
    this.#end();
  }

  #end() {
    const { editing, entry } = this;
    editing.edit = null;
    // Another tab or the network may have changed the mask during the stroke.
    const isOutdated = editing.shown.masks.cache.peek(entry.number) !== entry;
    if (isOutdated && editing.shown.entry === entry) editing.shown.reload();
  }
}

export class Editing {
  edit = null;

  constructor(store, shown, view, history) {
    Object.assign(this, { store, shown, view, history });
    const { width, height } = store.video;
    this.size = { width, height, all: { left: 0, top: 0, right: width, bottom: height } };
  }

  /** Start a change of the mask on the canvas. Returns null if none is possible at the moment. */
  begin() {
    const { entry, number } = this.shown;
    if (this.edit || !entry || this.store.isLocked || this.store.position !== number) return null;
    return this.open(entry);
  }

  /** Start a change of any mask that the page holds, if no other change is in progress. */
  open(entry) {
    this.edit = new Edit(this, entry);
    return this.edit;
  }

  /** The mask of a frame (see masks.js), as soon as no change is in progress. */
  async entry(number) {
    for (;;) {
      const entry = await this.shown.mask(number);
      if (!this.edit && this.shown.masks.cache.peek(number) === entry) return entry;
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  }

  /** The id of the object to draw. Adds object 1 if there is none, and shows a hidden object. */
  currentId() {
    if (!this.store.current) this.addObject();
    if (this.store.object(this.store.current)?.visible === false) this.change(this.store.current, { visible: true });
    return this.store.current;
  }

  /** Change an object's name, colour or visibility. */
  async change(id, changes) {
    try {
      await changeObject(id, changes);
    } catch (error) {
      this.store.emit("objects"); // shows the old values again
      this.store.emit("error", error);
    }
  }

  /** Add an object and select it. */
  async addObject() {
    const { store } = this;
    // The next stroke needs the id at once: the smallest free one. The ids of deleted objects are not free yet.
    let expected = 0;
    if (store.job?.kind !== "deletion") {
      do expected++;
      while (store.object(expected) || store.requested.has(expected));
      store.requested.add(expected);
      store.select(expected);
    }
    const request = addObject();
    this.shown.masks.after(request);
    try {
      const object = await request;
      // The answers to two requests may come in either order.
      const isExpected = store.requested.delete(object.id);
      if (!isExpected) store.requested.delete(expected);
      if (!store.object(object.id)) store.setObjects([...store.objects, object]);
      if (!isExpected) store.select(object.id);
    } catch (error) {
      store.requested.delete(expected);
      store.setObjects(store.objects); // selects an existing object
      store.emit("error", error);
    }
  }

  /** Save a mask that has changed. `uncertainty`: of a mask as the network has propagated it, NaN if unknown. */
  save(entry, kind, uncertainty = NaN) {
    Object.assign(entry, { kind, uncertainty });
    this.store.setFrame(entry.number, kind, uncertainty);
    this.shown.masks.save(entry);
    this.store.emit("edit");
  }

  /** Undo the last change of the frame on the canvas. */
  undo() {
    this.#replay((number) => this.history.undo(number), "before", "kindBefore");
  }

  /** Redo the last undone change. */
  redo() {
    this.#replay((number) => this.history.redo(number), "after", "kindAfter");
  }

  #replay(take, ids, kind) {
    const { entry } = this.shown;
    if (!entry || this.edit || this.store.isLocked) return;
    const step = take(entry.number);
    if (!step) return;
    paste(entry.ids, this.size, step.rect, step[ids]);
    this.view.refresh(step.rect);
    // The network's own mask becomes what it was, and not an annotation.
    this.save(entry, step[kind], step[kind] === "propagated" ? step.uncertainty : NaN);
  }

  /** Remove the mask of the frame on the canvas. */
  clear() {
    const edit = this.begin();
    if (!edit) return;
    const { left, right, bottom } = this.size.all;
    edit.apply(
      Array.from({ length: bottom }, (_, y) => ({ y, left, right })),
      () => 0,
    );
    edit.commit("none");
  }

  /** Revert a change that could not be saved. Returns a sentence about the reason. */
  refused(entry, error) {
    this.history.forget(entry.number);
    if (this.edit?.entry === entry) this.edit.cancel();
    if (this.shown.entry === entry) this.shown.reload();
    this.store.emit("edit");
    if (error instanceof ServerError && error.status === 412) {
      return (
        `Another tab or the network changed frame ${entry.number}, so your last stroke there was not saved. ` +
        "You see the newer mask now; draw the stroke again."
      );
    }
    return error.message;
  }
}
