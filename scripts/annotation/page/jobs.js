// Jobs of the server: propagation and export, with progress, and the frames that the canvas follows.

import * as api from "./api.js";
import { asSentence } from "./notices.js";

const element = (id) => document.getElementById(id);

/** A time in words: 15 s, 2 min 5 s. */
function inWords(seconds) {
  const whole = Math.round(seconds);
  return whole < 60 ? `${whole} s` : `${Math.floor(whole / 60)} min ${whole % 60} s`;
}

const BUSY = "The server is busy. Wait until the job ends, or stop the job with Escape.";
const TITLES = {
  propagation: ({ direction }) => `Propagating ${direction ?? ""}`.trim(),
  export: () => "Exporting",
  deletion: () => "Deleting the object from all masks",
  unpacking: () => "Unpacking the video",
};

export class Jobs {
  #wantsToFollow = true;
  #propagated = 0; // frames since the propagation began
  #isStarting = false;

  /**
   * @param store the project.
   * @param shown the frame on the canvas.
   * @param notices shows sentences.
   */
  constructor(store, shown, notices) {
    Object.assign(this, { store, shown, notices });
    element("stop").addEventListener("click", () => this.stop());
    element("follow").addEventListener("change", (event) => (this.#wantsToFollow = event.target.checked));
    element("export").addEventListener("click", () => this.openExport());
    element("import").addEventListener("click", () => this.#openImport());
    for (const id of ["import-file", "import-folder"]) {
      element(id).addEventListener("change", (event) => this.#import(event.target));
    }
    element("export-start").addEventListener("click", () => this.#export());
    element("export-stop").addEventListener("click", () => this.stop());
    store.on("job", (before) => this.#show(before));
    element("output").textContent = `${store.output}/export`;
    this.#show(null);
  }

  async #ask(request) {
    try {
      await request();
    } catch (error) {
      this.store.emit("error", error);
    }
  }

  /**
   * Propagate the mask on the canvas through the video.
   * @param direction forward, backward or both.
   * @param finish finishes pending edits; see `Tools.finish`.
   */
  async propagate(direction, finish) {
    if (this.store.job) return this.notices.say(BUSY);
    if (this.#isStarting) return;
    this.#isStarting = true;
    try {
      await this.#start(direction, this.store.position, finish);
    } catch (error) {
      this.store.emit("error", error);
    }
    this.#isStarting = false;
  }

  async #start(direction, number, finish) {
    if (!(await finish())) {
      return this.notices.say("The polygon has fewer than three corners. Add corners, or discard it with Escape.");
    }
    if (this.store.kind(number) === "none") {
      return this.notices.say(`Frame ${number} has no mask. Mark an object first, then propagate.`);
    }
    await this.shown.masks.idle();
    await api.propagate(number, direction, element("until").value);
  }

  /** Stop the job; finished frames are kept. */
  async stop() {
    const kind = this.store.job?.kind;
    if (kind === "propagation") await this.#ask(api.stopPropagation);
    if (kind === "export") await this.#ask(api.stopExport);
  }

  /** Stop following until the next propagation, because the user views another frame. */
  rest() {
    if (this.store.job?.kind === "propagation") element("follow").checked = false;
  }

  /** The network has propagated a frame. */
  follow(number) {
    if (this.store.job?.kind !== "propagation") return;
    this.#propagated++;
    if (element("follow").checked) this.shown.follow(number);
  }

  #show(before) {
    const { job } = this.store;
    element("job").hidden = !job;
    element("propagation").hidden = Boolean(job);
    const exports = job?.kind === "export";
    for (const id of ["export-stop", "export-progress"]) element(id).hidden = !exports;
    element("export-start").disabled = Boolean(job);
    if (job) {
      if (!before) this.#propagated = job.done; // not 0 where the page was loaded during the propagation
      if (!before) element("follow").checked = this.#wantsToFollow;
      const parts = [TITLES[job.kind](job)];
      if (job.frame !== null && job.frame !== undefined) parts.push(`frame ${job.frame}`);
      if (job.total) parts.push(`${job.done} of ${job.total}`);
      if (job.fps) parts.push(`${job.fps < 9.95 ? job.fps.toFixed(1) : Math.round(job.fps)} frames per second`);
      if (job.fps && job.left >= 0) parts.push(`${inWords(job.left)} left`);
      element("job-text").textContent = parts.join(" · ");
      for (const id of ["job-progress", "export-progress"]) {
        if (job.total) Object.assign(element(id), { value: job.done, max: job.total });
        else element(id).removeAttribute("value");
      }
      element("follow-row").hidden = job.kind !== "propagation";
      element("stop").hidden = ["deletion", "unpacking"].includes(job.kind);
    } else if (before?.kind === "propagation" && this.#propagated) {
      const frames = this.#propagated === 1 ? "1 frame" : `${this.#propagated} frames`;
      const [uncertain] = this.store.uncertainFrames();
      const next = uncertain === undefined ? "" : ` Press U to check frame ${uncertain}, an uncertain one.`;
      this.notices.say(`The network has propagated ${frames}.${next}`);
    }
  }

  #openImport() {
    element("import-frame").textContent = this.store.position;
    element("import-result").replaceChildren();
    element("import-dialog").showModal();
  }

  async #import(input) {
    const [number, files] = [this.store.position, [...input.files]];
    if (!files.length) return;
    const say = (text, className) => {
      const sentence = Object.assign(document.createElement("p"), { textContent: asSentence(text), className });
      element("import-result").append(sentence);
    };
    element("import-result").replaceChildren();
    try {
      await this.shown.masks.idle(); // strokes are saved before the import
      const { frames, sentences } = await api.importMasks(input.multiple ? null : number, files);
      sentences.forEach((text) => say(text, "info"));
      if (!frames.includes(number)) this.shown.seek(frames[0]);
    } catch (error) {
      say(error.message, "error");
    }
    input.value = ""; // so that the same file can be selected again
  }

  openExport() {
    element("export-result").replaceChildren();
    element("export-dialog").showModal();
    const isBusy = this.store.job && this.store.job.kind !== "export";
    if (isBusy) this.notice({ level: "info", text: BUSY });
  }

  async #export() {
    element("export-result").replaceChildren();
    const isSelected = (kind) => element(`export-${kind}`).checked;
    try {
      await this.shown.masks.idle();
      const kinds = ["masks", "overlay", "davis", "cutout", "matte", "zip"];
      await api.startExport(Object.fromEntries(kinds.map((kind) => [kind, isSelected(kind)])));
    } catch (error) {
      this.notice({ level: "error", text: error.message });
    }
  }

  /** A sentence from the server, with the paths of what it has written. */
  notice({ level, text, paths = [] }) {
    if (!element("export-dialog").open) return this.notices.say([text, ...paths].join("\n"), level);
    const list = document.createElement("ul");
    list.append(...paths.map((path) => Object.assign(document.createElement("li"), { textContent: path })));
    const sentence = Object.assign(document.createElement("p"), { textContent: asSentence(text), className: level });
    const link = Object.assign(document.createElement("a"), { href: "api/export.zip", textContent: "Download the zip" });
    const hasZip = paths.at(-1)?.endsWith(".zip");
    element("export-result").replaceChildren(sentence, ...(paths.length ? [list] : []), ...(hasZip ? [link] : []));
  }
}
