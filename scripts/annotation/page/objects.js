// The list of objects: selection, names, colours, visibility, deletion.

import { deleteObject } from "./api.js";

const element = (id) => document.getElementById(id);

function made(tag, properties) {
  return Object.assign(document.createElement(tag), properties);
}

/** A button with an icon from index.html. */
function iconButton(className, onClick) {
  const button = made("button", { type: "button", className: `plain ${className}` });
  button.innerHTML = "<svg><use/></svg>";
  button.addEventListener("click", onClick);
  return button;
}

export class Objects {
  #rows = new Map(); // id → list item

  /**
   * @param store the project.
   * @param editing adds and changes objects.
   * @param onLook is called when a colour or visibility changes: (objects) → nothing.
   */
  constructor(store, editing, onLook) {
    Object.assign(this, { store, editing, onLook });
    element("add-object").addEventListener("click", () => editing.addObject());
    store.on("objects", () => this.#show());
    store.on("current", () => this.#showCurrent());
    this.#show();
  }

  #show() {
    const { objects } = this.store;
    for (const [id, row] of this.#rows) {
      if (this.store.object(id)) continue;
      row.remove();
      this.#rows.delete(id);
    }
    objects.forEach((object, index) => {
      if (!this.#rows.has(object.id)) this.#rows.set(object.id, this.#makeRow(object));
      const row = this.#rows.get(object.id);
      const place = element("objects").children[index];
      if (place !== row) element("objects").insertBefore(row, place ?? null);
      this.#update(row, object);
    });
    element("no-objects").hidden = objects.length > 0;
    this.#showCurrent();
    this.onLook(objects);
  }

  #makeRow({ id }) {
    const row = made("li", {});
    row.dataset.id = id;
    const radio = made("input", { type: "radio", name: "object", value: id, ariaLabel: `Draw object ${id}` });
    radio.addEventListener("change", () => this.store.select(id));
    const key = id < 10 ? ` (${id})` : "";
    const number = made("label", { className: "number", title: `Draw object ${id}${key}` });
    number.append(radio, String(id));
    const colour = made("input", { type: "color", ariaLabel: `Colour of object ${id}`, title: "Colour" });
    colour.addEventListener("input", () => {
      this.onLook(this.store.objects.map((each) => (each.id === id ? { ...each, colour: colour.value } : each)));
    });
    colour.addEventListener("change", () => this.editing.change(id, { colour: colour.value }));
    const name = made("input", { type: "text", maxLength: 60, ariaLabel: `Name of object ${id}`, spellcheck: false });
    name.addEventListener("change", () => this.editing.change(id, { name: name.value.trim() || `object ${id}` }));
    name.addEventListener("keydown", (event) => event.key === "Enter" && name.blur());
    name.addEventListener("focus", () => this.store.select(id));
    const eye = iconButton("eye", () => this.editing.change(id, { visible: !this.store.object(id).visible }));
    const bin = iconButton("bin", () => this.#confirmDeletion(id));
    bin.querySelector("use").setAttribute("href", "#icon-bin");
    bin.title = `Delete object ${id}`;
    bin.ariaLabel = `Delete object ${id}`;
    row.append(number, colour, name, eye, bin);
    row.addEventListener("click", (event) => event.target === row && this.store.select(id));
    return row;
  }

  #update(row, { id, name, colour, visible }) {
    const [colourInput, nameInput] = [row.querySelector("[type=color]"), row.querySelector("[type=text]")];
    colourInput.value = colour;
    if (document.activeElement !== nameInput) nameInput.value = name;
    const eye = row.querySelector(".eye");
    eye.querySelector("use").setAttribute("href", visible ? "#icon-eye" : "#icon-eye-closed");
    eye.title = visible ? "Hide" : "Show";
    eye.ariaLabel = `${eye.title} object ${id}`;
    row.classList.toggle("off", !visible);
  }

  #showCurrent() {
    for (const [id, row] of this.#rows) {
      const isCurrent = id === this.store.current;
      row.classList.toggle("current", isCurrent);
      row.querySelector("[type=radio]").checked = isCurrent;
      if (isCurrent) row.scrollIntoView({ block: "nearest" });
    }
  }

  #confirmDeletion(id) {
    const dialog = element("delete-dialog");
    element("delete-title").textContent = `Delete ${this.store.object(id).name}?`;
    dialog.returnValue = "";
    dialog.onclose = async () => {
      if (dialog.returnValue !== "delete") return;
      try {
        await this.editing.shown.masks.idle();
        await deleteObject(id);
      } catch (error) {
        this.store.emit("error", error);
      }
    };
    dialog.showModal();
  }
}
