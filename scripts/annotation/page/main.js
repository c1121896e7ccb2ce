// The page: creates and connects its parts.

import * as api from "./api.js";
import { Cuts } from "./cuts.js";
import { Editing } from "./editing.js";
import { History } from "./history.js";
import { Jobs } from "./jobs.js";
import { Notices } from "./notices.js";
import { Objects } from "./objects.js";
import { Player } from "./player.js";
import { Pointer } from "./pointer.js";
import { Shown } from "./shown.js";
import { Store } from "./store.js";
import { Timeline } from "./timeline.js";
import { Tools } from "./tools.js";
import { View } from "./view.js";
import { handleKeys, shortcuts, showKeys } from "./shortcuts.js";

const STEP_ZOOM = 1.4;
const element = (id) => document.getElementById(id);
const store = new Store();
const notices = new Notices(element("notices"), store);

const KIND_TEXTS = { none: "no mask", propagated: "propagated", annotated: "annotated" };

/** What to do next, for new users. */
function guide() {
  if (store.job && !store.isUnpacking) return "";
  const hasPropagated = store.hasAny("propagated");
  if (!store.hasAny("annotated") && !hasPropagated) {
    return "Drag a box around an object. Then press F: the network propagates the mask through the video.";
  }
  const uncertain = store.uncertainFrames();
  if (uncertain.includes(store.position)) {
    const others = uncertain.length > 1 ? " Press U for the next uncertain frame." : "";
    return `Check frame ${store.position}: correct the mask if it is wrong, then press F.${others}`;
  }
  if (store.kind(store.position) === "none") {
    return "This frame has no mask. Press Shift+← to go back to the annotated frame.";
  }
  if (!hasPropagated) {
    return "Click (K) missing parts, and with Shift wrong ones. Then press F, or N to add another object.";
  }
  const annotated = store.annotatedFrom(-1, 1);
  if (annotated !== null && store.annotatedFrom(annotated, 1) === null) {
    return uncertain.length ? `Check frame ${uncertain[0]}; press U to go there.` : "";
  }
  return "";
}

/** Give a button its title, its key, and its action. */
function button(id, title, action) {
  const target = element(id);
  target.title = title;
  if (!target.textContent.trim()) target.ariaLabel = title;
  target.addEventListener("click", action);
}

/** Make the page's parts for the project that the server describes. */
function makePage() {
  const { video } = store;
  document.title = `${video.name} – annotation`;
  element("video-name").textContent = video.name;
  element("frame-number").max = video.frames - 1;
  element("frame-last").textContent = `/ ${video.frames - 1}`;

  const history = new History();
  const view = new View(element("stage"), video, (scale) => {
    element("zoom-output").textContent = `${Math.round(100 * scale)} %`;
  });
  const shown = new Shown(store, view, {
    onChanged(number) {
      history.forget(number);
      if (number === shown.number && !editing.edit) shown.reload();
    },
    onRefused: (entry, error) => notices.say(editing.refused(entry, error), "error"),
  });
  const editing = new Editing(store, shown, view, history);
  const jobs = new Jobs(store, shown, notices);
  const cuts = new Cuts(store, editing, (text) => notices.say(text));
  const tools = new Tools(store, view, editing, cuts);
  const propagate = (direction) => jobs.propagate(direction, () => tools.finish());
  const player = new Player(store, shown, showPlaying);
  const pointer = new Pointer(view, tools, () => {
    jobs.rest();
    player.stop();
  });

  let objects = [];
  const look = (current = objects) => {
    objects = current;
    element("opacity-output").value = `${element("opacity").value} %`;
    view.setLook(objects, element("opacity").value / 100, element("contours").checked);
  };
  new Objects(store, editing, look);
  for (const id of ["opacity", "contours"]) element(id).addEventListener("input", () => look());

  /** Go to a frame on the user's request. `isSwift`: more requests may follow before the frame is here. */
  function go(number, isSwift = false) {
    jobs.rest();
    player.stop();
    return isSwift ? shown.follow(number) : shown.seek(number);
  }
  new Timeline(store, (number) => go(number, true));

  function goTo(number, otherwise) {
    if (number === null || number === undefined) notices.say(otherwise);
    else go(number);
  }
  const actions = {
    select: (tool) => tools.select(tool),
    changeSize: (direction) => tools.changeSize(direction),
    apply: () => tools.apply(),
    leave() {
      if (!tools.drop()) jobs.stop();
    },
    selectObject: (id) => store.object(id) && store.select(id),
    addObject: () => editing.addObject(),
    undo: () => tools.back() || editing.undo(),
    back: () => tools.isPending && tools.back(),
    redo: () => editing.redo(),
    clear: () => editing.clear(),
    propagate,
    step: (frames) => go(store.position + frames, true),
    go,
    last: () => go(store.last),
    previousAnnotated: () => goTo(store.annotatedFrom(store.position, -1), "No frame before this one is annotated."),
    nextAnnotated: () => goTo(store.annotatedFrom(store.position, 1), "No frame after this one is annotated."),
    nextUncertain() {
      const frames = store.uncertainFrames();
      const next = frames.find((number) => number > store.position) ?? frames[0];
      goTo(next, "There are no uncertain frames yet. Propagate a mask first.");
    },
    playOrPause() {
      jobs.rest();
      player.toggle();
    },
    zoom: (direction) => view.zoomBy(STEP_ZOOM ** direction),
    fit: () => view.fit(),
    help: () => element("shortcuts-dialog").showModal(),
  };
  const groups = shortcuts(actions);
  showKeys(groups, element("shortcuts-table"));
  handleKeys(groups, (isDown, isReleased) => {
    // The space bar moves the frame with the pointer, and plays without it.
    if (isReleased && pointer.isSpaceDown && !pointer.hasMoved) actions.playOrPause();
    if (isDown && !pointer.isSpaceDown) pointer.hasMoved = false;
    pointer.isSpaceDown = isDown;
    pointer.showCursor();
  });

  button("undo", "Undo (Ctrl+Z)", actions.undo);
  button("redo", "Redo (Ctrl+Shift+Z)", actions.redo);
  button("clear-frame", "Remove the mask of this frame (Delete)", actions.clear);
  button("shortcuts", "Show all keys (?)", actions.help);
  button("previous-annotated", "Previous annotated frame (Shift+←)", actions.previousAnnotated);
  button("next-annotated", "Next annotated frame (Shift+→)", actions.nextAnnotated);
  button("next-uncertain", "Next uncertain frame (U)", actions.nextUncertain);
  button("previous", "Previous frame (←)", () => actions.step(-1));
  button("next", "Next frame (→)", () => actions.step(1));
  button("play", "Play (Space)", actions.playOrPause);
  button("zoom-out", "Zoom out (−)", () => actions.zoom(-1));
  button("zoom-in", "Zoom in (+)", () => actions.zoom(1));
  button("zoom-fit", "Show the whole frame (0)", actions.fit);
  button("forward", "Propagate the mask of this frame to later frames (F)", () => propagate("forward"));
  button("backward", "Propagate the mask of this frame to earlier frames (Shift+F)", () => propagate("backward"));
  button("both", "Propagate the mask of this frame to later, then to earlier frames", () => propagate("both"));
  element("frame-number").addEventListener("change", (event) => go(Math.round(Number(event.target.value)) || 0));
  element("frame-number").addEventListener("keydown", (event) => event.key === "Enter" && event.target.blur());
  element("until").addEventListener("change", (event) => event.target.blur()); // or the next key selects an entry

  function showPlaying() {
    const title = player.isPlaying ? "Pause (Space)" : "Play (Space)";
    Object.assign(element("play"), { title, ariaLabel: title });
    element("play").querySelector("use").setAttribute("href", player.isPlaying ? "#icon-pause" : "#icon-play");
  }

  function showFrame() {
    const number = store.position;
    if (document.activeElement !== element("frame-number")) element("frame-number").value = number;
    const uncertainty = store.uncertainty[number];
    const known = Number.isNaN(uncertainty) ? "" : `, uncertainty ${uncertainty.toFixed(2)} bits`;
    element("frame-kind").textContent = `Frame ${number}: ${KIND_TEXTS[store.kind(number)]}${known}`;
    view.picture.ariaLabel = `Frame ${number} with its mask`;
    element("undo").disabled = !history.canUndo(number) && !tools.isPending && !cuts.isBusy;
    element("redo").disabled = !history.canRedo(number);
    element("clear-frame").disabled = store.kind(number) === "none";
    const text = tools.isPending ? "" : guide();
    element("guide").hidden = !text;
    element("guide").textContent = text;
  }
  for (const topic of ["position", "shown", "frames", "job", "edit", "tool"]) store.on(topic, showFrame);

  store.on("position", () => {
    if (store.position !== shown.number) tools.end(); // the stroke belongs to the frame on the canvas
  });

  const isUnsaved = () => shown.masks.isSaving || cuts.isBusy;
  function showSaving() {
    element("save-state").textContent = !isUnsaved() ? "Saved" : store.isLocked ? "Not saved" : "Saving …";
  }
  for (const topic of ["saving", "cuts"]) store.on(topic, showSaving);

  addEventListener("beforeunload", (event) => {
    if (isUnsaved()) event.preventDefault(); // the browser asks whether to leave
  });

  return { shown, jobs, history, view, cuts };
}

let page = null;
let ids = new Set();

/** Process an event of the server. `isOld`: it came before the state, which may contain it. */
function process(event, isOld = false) {
  if (event.type === "objects") {
    const gone = [...ids].some((id) => !event.objects.some((object) => object.id === id));
    if (gone) page.history.clear(); // a step could restore the deleted object
    ids = new Set(event.objects.map((object) => object.id));
    store.setObjects(event.objects);
  } else if (event.type === "frame") {
    const isKnown = isOld && store.uncertainty[event.number] === Math.fround(event.uncertainty ?? NaN);
    store.setFrame(event.number, event.kind, event.uncertainty);
    page.shown.masks.announce(event.number, event.revision);
    if (event.kind === "propagated" && !isKnown) page.jobs.follow(event.number);
  } else if (event.type === "job") store.setJob(event.job);
  else if (event.type === "length") annotator.idle().then(() => location.reload());
  else if (event.type === "notice") page.jobs.notice(event);
}

// Events that arrive before the state.
let waiting = [];

async function connect() {
  waiting ??= [];
  try {
    const state = await api.getState();
    store.isLocked = false;
    element("lost").hidden = true;
    store.load(state);
    ids = new Set(state.objects.map((object) => object.id));
    if (page) page.shown.reset();
    else {
      page = makePage();
      for (const note of state.notes) notices.say(note);
      await page.shown.seek(store.annotatedFrom(-1, 1) ?? 0);
      window.annotator.ready = true;
    }
    const events = waiting;
    waiting = null;
    for (const event of events) process(event, true);
  } catch (error) {
    store.emit("error", error);
  }
}

function lose() {
  store.isLocked = true;
  element("lost-text").textContent =
    "The server has stopped. Your masks are saved. " +
    "To resume, start the same command again and use the page that it opens.";
  element("lost").hidden = false;
  store.emit("saving");
}

store.on("error", (error) => notices.say(error.message, "error"));

/** For tests and measurements. */
window.annotator = {
  ready: false,
  get frame() {
    return page.shown.number;
  },
  kind: (number) => store.kind(number),
  seek: (number) => page.shown.seek(number),
  async idle() {
    await page.cuts.idle();
    await page.shown.masks.idle();
  },
  /** The position of a point of the frame in the window. */
  place(x, y) {
    const [stage, point] = [element("stage").getBoundingClientRect(), page.view.toStage({ x, y })];
    return [stage.left + point.x, stage.top + point.y];
  },
};

api.listen((event) => (waiting ? waiting.push(event) : process(event)), connect, lose);
