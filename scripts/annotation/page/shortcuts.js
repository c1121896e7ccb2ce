// Keyboard shortcuts. One table defines all keys, and is shown as help.

const NATIVE = {
  text: () => true, // keys write
  number: () => true,
  range: (key) => key.startsWith("Arrow") || ["Home", "End", "PageUp", "PageDown"].includes(key),
  radio: (key) => key.startsWith("Arrow"),
};

/** The name of a pressed key, as the table writes it: "b", "Shift+f", "Ctrl+z", "ArrowLeft", "?". */
function nameOf(event) {
  // On keyboards of other scripts, the position names the key.
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
  // Space and Enter press a button that has keyboard focus; after a click they belong to the canvas.
  return [" ", "Enter"].includes(key) && target.matches("button:focus-visible, input:focus-visible");
}

/**
 * The table of keys, in groups by title. An entry has `keys`: names as `nameOf` returns them; `label`: the keys in the
 * help; `text`: the description; `run`: the action (none for entries of the help only); `repeats`: whether the action
 * repeats while a key is held down.
 * @param actions the actions of the page, by name.
 */
export function shortcuts(actions) {
  const tool = (key, name, text) => ({ keys: [key], label: key.toUpperCase(), text, run: () => actions.select(name) });
  return {
    Tools: [
      tool("g", "box", "Box around the object"),
      tool("k", "click", "Click missing parts; with Shift wrong parts"),
      tool("s", "scribbles", "Scribbles: lines instead of clicks"),
      tool("b", "brush", "Brush"),
      tool("e", "eraser", "Eraser; with Shift all objects"),
      tool("p", "polygon", "Polygon"),
      { keys: ["["], label: "[", text: "Smaller brush", run: () => actions.changeSize(-1), repeats: true },
      { keys: ["]"], label: "]", text: "Larger brush", run: () => actions.changeSize(1), repeats: true },
      { keys: ["Enter"], label: "Enter", text: "Close the polygon", run: actions.apply },
      { keys: ["Backspace"], label: "Backspace", text: "Remove the last corner", run: actions.back, repeats: true },
      { keys: ["Escape"], label: "Esc", text: "Discard pending edits, stop the propagation", run: actions.leave },
    ],
    "Objects and masks": [
      {
        keys: ["1", "2", "3", "4", "5", "6", "7", "8", "9"],
        label: "1 / … / 9",
        text: "Draw object 1 … 9",
        run: (key) => actions.selectObject(Number(key)),
      },
      { keys: ["n"], label: "N", text: "Add an object", run: actions.addObject },
      { keys: ["Ctrl+z"], label: "Ctrl+Z", text: "Undo", run: actions.undo, repeats: true },
      {
        keys: ["Ctrl+Shift+z", "Ctrl+y"],
        label: "Ctrl+Shift+Z / Ctrl+Y",
        text: "Redo",
        run: actions.redo,
        repeats: true,
      },
      { keys: ["Delete"], label: "Delete", text: "Remove the mask of this frame", run: actions.clear },
    ],
    Propagation: [
      { keys: ["f"], label: "F", text: "Propagate forward", run: () => actions.propagate("forward") },
      { keys: ["Shift+f"], label: "Shift+F", text: "Propagate backward", run: () => actions.propagate("backward") },
      { keys: ["u"], label: "U", text: "Next uncertain frame", run: actions.nextUncertain },
    ],
    Frames: [
      { keys: ["ArrowLeft"], label: "←", text: "Previous frame", run: () => actions.step(-1), repeats: true },
      { keys: ["ArrowRight"], label: "→", text: "Next frame", run: () => actions.step(1), repeats: true },
      { keys: ["Shift+ArrowLeft"], label: "Shift+←", text: "Annotated frame before", run: actions.previousAnnotated },
      { keys: ["Shift+ArrowRight"], label: "Shift+→", text: "Annotated frame after", run: actions.nextAnnotated },
      { keys: ["Home"], label: "Home", text: "First frame", run: () => actions.go(0) },
      { keys: ["End"], label: "End", text: "Last frame", run: actions.last },
      { keys: ["l"], label: "Space / L", text: "Play, pause", run: actions.playOrPause },
    ],
    View: [
      { keys: ["+", "="], label: "+ / Wheel", text: "Zoom in", run: () => actions.zoom(1), repeats: true },
      { keys: ["-"], label: "− / Wheel", text: "Zoom out", run: () => actions.zoom(-1), repeats: true },
      { keys: ["0"], label: "0", text: "Show the whole frame", run: actions.fit },
      { label: "Space+drag / Middle button / Two fingers", text: "Move the frame" },
      { keys: ["?"], label: "?", text: "Show these keys", run: actions.help },
    ],
  };
}

/**
 * Handle keys.
 * @param groups the table, as `shortcuts` gives it.
 * @param onSpace is called with whether the space bar is down, and whether the user has just released it.
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
    onSpace(false, true);
  });
  addEventListener("blur", () => onSpace(false));
  // A clicked element loses the focus, so that the next key belongs to the page; keyboard focus stays.
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
