// The result beside the picture: texts, the list of items, the raw text, JSON, facts.

import { byId, make } from "./dom.js";

const ICON = "M4 9V6a2 2 0 0 1 2-2h3M15 4h3a2 2 0 0 1 2 2v3M20 15v3a2 2 0 0 1-2 2h-3M9 20H6a2 2 0 0 1-2-2v-3";

export class Results {
  #onPoint;
  #onUse;

  /** @param onPoint called with the index of the item that is pointed at, or null.
   *  @param onUse called with a box that is to be the region of the next request. */
  constructor({ onPoint, onUse }) {
    this.#onPoint = onPoint;
    this.#onUse = onUse;
    const list = byId("items");
    list.addEventListener("pointerover", (event) => onPoint(indexOf(event.target)));
    list.addEventListener("pointerleave", () => onPoint(null));
    list.addEventListener("focusin", (event) => onPoint(indexOf(event.target)));
    list.addEventListener("focusout", () => onPoint(null));
  }

  /** @param view {marks, prose, errors}; @param isStreaming whether more will come. */
  show({ marks, prose, errors = [] }, isStreaming, emptyWords) {
    byId("prose").replaceChildren(
      ...prose.map(({ text, score }, at) => proseOf(text, score, isStreaming && at === prose.length - 1)),
      ...errors.map((error) => make("p", { class: "problem" }, error)),
    );
    byId("items").replaceChildren(...marks.map((mark) => this.#itemOf(mark)));
    const isEmpty = !marks.length && !prose.length && !errors.length;
    byId("placeholder").hidden = !isEmpty;
    byId("placeholder").textContent = emptyWords;
  }

  highlight(index, isScrolled = false) {
    for (const item of byId("items").children) {
      const isOn = Number(item.dataset.index) === index;
      item.classList.toggle("on", isOn);
      if (isOn && isScrolled) item.scrollIntoView({ block: "nearest" });
    }
  }

  showText(parts) {
    byId("raw").replaceChildren(...parts.flatMap(({ title, text }, at) => [
      ...(title ? [`${at ? "\n\n" : ""}${title}\n`] : []),
      ...text.split(/(<[^<>\s]+>)/).filter(Boolean).map((piece) =>
        /^<[^<>\s]+>$/.test(piece) ? make("span", { class: "special" }, piece) : piece),
    ]));
  }

  showJson(text) {
    byId("json").textContent = text;
  }

  showFacts(facts) {
    byId("facts").replaceChildren(...facts.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value))));
  }

  #itemOf(mark) {
    const swatch = make("span", { class: "swatch", "aria-hidden": "true" });
    swatch.style.background = mark.color;
    const label = mark.label || `Region ${mark.index + 1}`;
    const pick = make(
      "button",
      { type: "button", class: "pick", onclick: () => this.#onPoint(mark.index) },
      swatch,
      make("bdi", { class: mark.label ? "label" : "label none", dir: "auto" }, label),
      mark.score === null ? "" : make("span", { class: "score" }, mark.score.toFixed(2)),
      mark.said ? make("bdi", { class: mark.isFailed ? "said failed" : "said", dir: "auto" }, mark.said) : null,
      mark.bounds ? make("span", { class: "where" }, mark.bounds.map(Math.round).join(", ")) : null,
    );
    const use = mark.bounds
      ? make(
          "button",
          { type: "button", class: "use", "aria-label": `Use as the region: ${label}`, title: "Use as the region",
            onclick: () => this.#onUse(mark.bounds) },
          icon(),
        )
      : null;
    return make("li", { class: "item", "data-index": mark.index }, pick, use);
  }
}

function indexOf(target) {
  const item = target.closest("[data-index]");
  return item ? Number(item.dataset.index) : null;
}

function proseOf(text, score, isStreaming) {
  const words = make("bdi", { dir: "auto" }, text || (isStreaming ? "" : "(no text)"));
  const rating = score === null || isStreaming ? null : make("span", { class: "score" }, ` score ${score.toFixed(2)}`);
  return make("p", { class: isStreaming ? "caret" : null }, words, rating);
}

function icon() {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  for (const [name, value] of Object.entries({ d: ICON, fill: "none", stroke: "currentColor", "stroke-width": 2, "stroke-linecap": "round" })) {
    path.setAttribute(name, value);
  }
  svg.append(path);
  return svg;
}
