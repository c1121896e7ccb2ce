// The page of a stream: its pictures, and boxes and clicks on the first frame. The server keeps the marks.

import { Box, CLICK_RADIUS, drawCuts } from "./cuts.js";
import { asSentence } from "./notices.js";
import { Pointer } from "./pointer.js";
import { View } from "./view.js";

const DRAG = 8; // CSS pixels: a shorter stroke is a click
const element = (id) => document.getElementById(id);

let state = { stage: "", number: 0 }; // of the picture on the canvas, as the server states it
let view = null;
let bitmap = null;
let held = null; // the number of the picture that stays on the canvas while it is being marked
let object = 1; // which clicks correct
let last = Promise.resolve(); // settles when the last request is answered
const waiting = []; // for each request without an answer, what is drawn
const SILENT = "the command does not answer; its terminal says why";

const isMarking = () => ["live", "frozen"].includes(state.stage);

/** Show a sentence in place of the guide, until the next request. */
function say(text, level = "error") {
  element("message").hidden = !text;
  element("guide").hidden = Boolean(text);
  element("message").className = `notice ${level}`;
  element("message").textContent = text && asSentence(text);
}

/**
 * Send a request after those before it, as long as a frame can be marked. Resolves to whether the server has taken it.
 * @param request what the server gets.
 * @param cut what is drawn until the answer comes, as `drawCuts` takes it.
 */
function send(request, cut = null) {
  if (!isMarking()) return;
  const entry = { cut };
  waiting.push(entry);
  say("");
  showState();
  last = last.then(async () => {
    let answer;
    try {
      const response = await fetch("marks", { method: "POST", body: JSON.stringify(request) });
      answer = await response.json();
    } catch {
      answer = { error: SILENT };
    }
    waiting.splice(waiting.indexOf(entry), 1);
    say(answer.error ?? answer.note ?? "", answer.error ? "error" : "info");
    showState();
    return !answer.error;
  });
  return last;
}

/** Boxes and clicks, as `Pointer` and `Box` want tools. The first one freezes the picture on the canvas. */
const tools = {
  box: null,
  from: null, // where the stroke began
  isInside: true,
  isFirst: false, // whether this stroke has frozen the picture

  get view() {
    return view;
  },

  down(point, { shift, erases }) {
    if (!isMarking()) return;
    this.from = point;
    this.isInside = !(shift || erases || element("outside").checked);
    this.isFirst = state.stage === "live" && held === null;
    if (this.isFirst) {
      held = state.number;
      send({ kind: "freeze", number: held }).then((isFrozen) => {
        if (!isFrozen) held = null;
      });
    }
    this.box.down(point);
  },

  move(points) {
    if (this.from) this.box.move(points);
  },

  up(point) {
    if (!this.from) return;
    const { x, y } = this.from;
    this.from = null;
    if (view.scale * Math.hypot(point.x - x, point.y - y) > DRAG) return this.box.up();
    this.box.cancel();
    const radius = CLICK_RADIUS * Math.min(view.size.width, view.size.height);
    const request = { kind: "click", object, x: Math.floor(x), y: Math.floor(y), isInside: this.isInside };
    send(request, { points: [{ x, y }], radius, isInside: this.isInside });
  },

  /** A second finger moves the picture, which was not to be marked. */
  cancel() {
    if (this.from && this.isFirst) send({ kind: "newer" });
    this.from = null;
    this.box.cancel();
  },

  hover() {},

  /** Take a box from `Box`. */
  add({ box }) {
    send({ kind: "box", box }, { box });
  },
};

function showState() {
  const { stage, objects = [], steps = 0 } = state;
  element("bar").hidden = !isMarking();
  const isBusy = waiting.some(({ cut }) => cut);
  const first = "Drag a box around an object. The frame stays while you mark it.";
  const next = "Click what is missing, or with Shift what is too much. Drag a box for one more object. Then press Start.";
  const started = "The stream is being segmented. Ctrl-C in the terminal ends it with complete results.";
  const marking = isBusy ? "Finding the object …" : objects.length ? next : first;
  const guide = isMarking() ? marking : stage === "started" ? started : "";
  if (element("guide").textContent !== guide) element("guide").textContent = guide; // a screen reader reads it once
  element("undo").disabled = !steps || waiting.length > 0;
  element("newer").disabled = stage !== "frozen" || waiting.length > 0;
  element("start").disabled = !objects.length || waiting.length > 0;
  view?.redrawMarks();
  const buttons = objects.map((colour, index) => {
    const button = document.createElement("button");
    Object.assign(button, { type: "button", textContent: index + 1, ariaPressed: index + 1 === object });
    button.style.setProperty("--object", colour);
    button.addEventListener("click", () => {
      object = index + 1;
      showState();
    });
    return button;
  });
  element("objects").replaceChildren(...buttons);
}

function show(found, next) {
  const { width, height } = found;
  if (!view) {
    view = new View(element("stage"), { width, height }, () => {});
    tools.box = new Box(tools, tools, { width, height });
    view.drawMarks = (context) => {
      drawCuts(context, view, waiting.flatMap(({ cut }) => cut ?? []));
      tools.box.draw(context, view);
    };
    new Pointer(view, tools, () => {});
  }
  if (next.objects?.length !== state.objects?.length) object = Math.max(1, next.objects?.length ?? 0);
  const before = bitmap;
  [bitmap, state] = [found, next];
  view.show(bitmap, null);
  before?.close();
  if (state.stage !== "live") held = null;
  showState();
}

/** Show each picture as it comes, until the command ends. */
async function follow() {
  for (let number = 0; ; ) {
    const response = await fetch(`picture?after=${number}`);
    if (!response.headers.has("X-State")) return say((await response.json()).end, "info");
    const next = JSON.parse(response.headers.get("X-State"));
    number = next.number;
    const found = await createImageBitmap(await response.blob());
    if (held === null || next.stage !== "live") show(found, next);
  }
}

for (const kind of ["undo", "newer", "start"]) element(kind).addEventListener("click", () => send({ kind }));
addEventListener("keydown", (event) => {
  if (event.key === "z" && (event.ctrlKey || event.metaKey)) element("undo").click();
});
try {
  await follow();
} catch {
  say(SILENT);
}
state = { stage: "ended" };
showState();
