// Generation options, adapter and model. What is empty is not sent: the checkpoint's own settings apply.

import { byId } from "./dom.js";
import { fieldOf, inWords } from "./fields.js";

// Options of /v1/tasks that have their own control, or none: the page has a slider for scores.
const ELSEWHERE = ["model", "adapter", "priority", "timeout", "stream", "min_score", "max_items", "labels"];
const TITLES = {
  num_beams: "Beams", max_new_tokens: "Maximum tokens", min_new_tokens: "Minimum tokens",
  no_repeat_ngram_size: "No repeated n-grams", suppress_bos: "Suppress <s>",
};
const FIRST = ["num_beams", "max_new_tokens"];

export class Options {
  /** The options that are set, by name. */
  values = {};
  #onChange;
  #models = [];

  constructor(onChange) {
    this.#onChange = onChange;
  }

  /** Make controls for the options of /v1/tasks. */
  declare(options) {
    const shown = options.filter(({ name }) => !ELSEWHERE.includes(name));
    const rank = ({ name }) => (FIRST.includes(name) ? FIRST.indexOf(name) : FIRST.length);
    shown.sort((one, other) => rank(one) - rank(other));
    byId("option-grid").replaceChildren(...shown.map((option) => this.#field(option)));
  }

  /** Offer the models and adapters of /v1/server. */
  offer(models) {
    this.#models = models;
    this.#offerChoices();
  }

  /** The chosen model, as /v1/server lists it; null before. */
  get model() {
    return this.#models.find(({ name }) => name === this.values.model) ?? this.#models[0] ?? null;
  }

  #offerChoices() {
    const engines = (this.model?.servers ?? []).flatMap((server) => server.engines ?? []);
    const adapters = [...new Set(engines.flatMap((engine) => engine.adapters ?? []))].sort();
    const names = this.#models.map(({ name }) => name);
    if (!adapters.includes(this.values.adapter)) delete this.values.adapter;
    byId("served-choices").replaceChildren(
      ...(names.length > 1 ? [this.#field({ name: "model", choices: names, default: names[0] })] : []),
      ...(adapters.length ? [this.#field({ name: "adapter", choices: ["", ...adapters], default: "" })] : []),
    );
  }

  #field(option) {
    const title = TITLES[option.name] ?? inWords(option.name);
    return fieldOf({ ...option, title, placeholder: "default", required: false }, this.values, () => this.#changed(option));
  }

  #changed({ name, default: standard }) {
    if (["", standard].includes(this.values[name])) delete this.values[name];
    if (name === "model") this.#offerChoices();
    const count = Object.keys(this.values).filter((each) => !["model", "adapter"].includes(each)).length;
    byId("options-set").textContent = count ? `(${count} set)` : "";
    this.#onChange();
  }
}
