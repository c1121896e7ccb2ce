// Sentences to the user, above the canvas. Errors stay until they are dismissed.

const SHOWN = 6000; // ms
const MOST = 4;

/** A text with a capital letter and a full stop. */
export function asSentence(text) {
  const sentence = text[0].toUpperCase() + text.slice(1);
  return /[.!?]$/.test(sentence) || sentence.includes("\n") ? sentence : `${sentence}.`; // paths follow after line ends
}

export class Notices {
  constructor(container) {
    this.container = container;
  }

  /** Show a sentence. `level`: "info" or "error". */
  say(text, level = "info") {
    for (const other of this.container.children) if (other.dataset.text === text) other.remove();
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
    this.container.append(notice);
    while (this.container.children.length > MOST) this.container.firstChild.remove();
    if (level !== "error") setTimeout(() => notice.remove(), SHOWN);
  }
}
