// Sentences to the user, in the strip above the stage. Errors stay until they are dismissed. Other sentences stay until
// the next sentence, another frame, a change of a mask or a new job, but no longer than SHOWN.

const SHOWN = 15000; // ms
const MOST = 4;

/** A text with a capital letter and a full stop. A file name or a path at its start keeps its letters. */
export function asSentence(text) {
  const sentence = /^[a-z]+[ ,;]/.test(text) ? text[0].toUpperCase() + text.slice(1) : text;
  return /[.!?]$/.test(sentence) || sentence.includes("\n") ? sentence : `${sentence}.`; // paths follow after line ends
}

export class Notices {
  #position = null; // the frame that the sentence is about

  /**
   * @param container shows the sentences.
   * @param store the project.
   */
  constructor(container, store) {
    Object.assign(this, { container, store });
    store.on("position", () => store.position !== this.#position && this.#outdated());
    store.on("edit", () => this.#outdated());
    store.on("job", (before) => store.job && !before && this.#outdated());
  }

  /** Show a sentence. `level`: "info" or "error". */
  say(text, level = "info") {
    for (const other of [...this.container.children]) if (other.dataset.text === text) other.remove();
    this.#outdated();
    this.#position = this.store.position;
    const notice = document.createElement("div");
    notice.className = `notice ${level}`;
    if (level === "error") notice.role = "alert";
    notice.dataset.text = text;
    const sentence = document.createElement("span");
    sentence.textContent = asSentence(text);
    const close = document.createElement("button");
    close.type = "button";
    close.className = "plain";
    close.ariaLabel = "Dismiss";
    close.innerHTML = '<svg><use href="#icon-close"/></svg>';
    close.addEventListener("click", () => notice.remove());
    notice.append(sentence, close);
    this.container.prepend(notice);
    while (this.container.children.length > MOST) this.container.lastChild.remove();
    if (level !== "error") setTimeout(() => notice.remove(), SHOWN);
  }

  #outdated() {
    for (const notice of [...this.container.children]) if (!notice.classList.contains("error")) notice.remove();
  }
}
