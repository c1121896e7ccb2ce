// Keys. One table says what each key does; the page handles keys by this table, and shows the table as help.

const NATIVE = {
  text: () => true, // keys write
  number: () => true,
  range: (key) => key.startsWith("Arrow") || ["Home", "End", "PageUp", "PageDown"].includes(key),
  radio: (key) => key.startsWith("Arrow"),
};

/** The name of a pressed key, as the table writes it: "b", "Shift+f", "Ctrl+z", "ArrowLeft", "?". */
function nameOf(event) {
  // Keyboards of other scripts name keys by their place.
  const isLatin = event.key.length > 1 || event.key.charCodeAt(0) < 128;
  const key = isLatin ? event.key : event.code.replace(/^(Key|Digit)/, "");
  const isLetter = /^[a-z]$/i.test(key);
  const shift = event.shiftKey && (isLetter || key.length > 1) ? "Shift+" : "";
  const control = event.ctrlKey || event.metaKey ? "Ctrl+" : "";
  return control + shift + (isLetter ? key.toLowerCase() : key);
}

/** Whether the element with the focus needs the key itself. */
function isNative(target, key) {
  if (key === "Escape") return false;
  if (target instanceof HTMLSelectElement) return true;
  if (target instanceof HTMLInputElement && NATIVE[target.type]?.(key)) return true;
  // Who came to a button by the keyboard presses the button; after a click, space and Enter belong to the canvas.
  return [" ", "Enter"].includes(key) && target.matches("button:focus-visible, input:focus-visible");
}

/**
 * Handle keys.
 * @param groups the table: {title: [{keys, label, text, run, repeats}]}. `keys`: names as `nameOf` gives them; `label`: the
 * keys as the help shows them; `text`: what they do; `run`: does this (entries without only tell); `repeats`: whether a key
 * that is held down does it again and again.
 * @param onSpace is called with whether the space bar is down.
 */
export function handleKeys(groups, onSpace) {
  const table = new Map();
  for (const entry of Object.values(groups).flat()) for (const key of entry.keys ?? []) table.set(key, entry);
  addEventListener("keydown", (event) => {
    if (event.isComposing || event.altKey || document.querySelector("dialog[open]")) return;
    if (isNative(event.target, event.key)) return;
    if (event.key === " ") {
      event.preventDefault();
      onSpace(true);
      return;
    }
    const name = nameOf(event);
    const entry = table.get(name);
    if (!entry?.run) return;
    event.preventDefault();
    if (event.key === "Escape" && event.target !== document.body) event.target.blur();
    if (!event.repeat || entry.repeats) entry.run(name);
  });
  addEventListener("keyup", (event) => {
    if (event.key !== " ") return;
    if (!isNative(event.target, " ")) event.preventDefault(); // or the last clicked button is pressed
    onSpace(false);
  });
  addEventListener("blur", () => onSpace(false));
  // What was clicked gives the focus back, so that the next key belongs to the page; by the keyboard the focus stays.
  addEventListener("click", (event) => {
    const clicked = event.target.closest("button, [type=range], [type=checkbox], [type=radio]");
    if (event.detail > 0 && clicked && !clicked.closest("dialog")) clicked.blur();
  });
}

/** Fill the help with the table. */
export function showKeys(groups, container) {
  for (const [title, entries] of Object.entries(groups)) {
    const section = document.createElement("section");
    section.append(Object.assign(document.createElement("h3"), { textContent: title }));
    const list = document.createElement("dl");
    for (const { label, text } of entries) {
      const keys = document.createElement("dt");
      keys.append(
        ...label.split(" / ").flatMap((key, index) => {
          const shown = Object.assign(document.createElement("kbd"), { textContent: key });
          return index ? [" ", shown] : [shown];
        }),
      );
      list.append(keys, Object.assign(document.createElement("dd"), { textContent: text }));
    }
    section.append(list);
    container.append(section);
  }
}
