// The last answers of this visit.

import { byId, make } from "./dom.js";
import { inWords } from "./fields.js";

const MOST = 8;

export class History {
  #entries = [];
  #onRestore;

  constructor(onRestore) {
    this.#onRestore = onRestore;
  }

  /** @param entry {answering, picture, summary}. */
  add(entry) {
    this.#entries = [entry, ...this.#entries].slice(0, MOST);
    byId("history").hidden = this.#entries.length < 2;
    byId("history-list").replaceChildren(...this.#entries.map((each) => make("li", {}, this.#buttonOf(each))));
  }

  #buttonOf(entry) {
    const title = inWords(entry.answering.task.name);
    const words = entry.summary.length > 28 ? `${[...entry.summary].slice(0, 27).join("")}…` : entry.summary;
    return make(
      "button",
      { type: "button", title: entry.summary, onclick: () => this.#onRestore(entry) },
      make("img", { src: entry.picture.size ? entry.picture.url : "static/icon.svg", alt: "", width: 36, height: 36 }),
      make("span", {}, title),
      make("small", { dir: "auto" }, words),
    );
  }
}
