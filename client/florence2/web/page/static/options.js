// Generation options, adapter and model. What is empty is not sent: the checkpoint's own settings apply.

import { byId, make } from "./dom.js";
import { inWords } from "./fields.js";

const NUMBERS = [
  { name: "num_beams", title: "Beams", hint: "checkpoint's" },
  { name: "max_new_tokens", title: "Most tokens", hint: "no limit" },
  { name: "min_new_tokens", title: "Fewest tokens", hint: "0" },
  { name: "length_penalty", title: "Length penalty", hint: "checkpoint's", isDecimal: true },
  { name: "repetition_penalty", title: "Repetition penalty", hint: "checkpoint's", isDecimal: true },
  { name: "no_repeat_ngram_size", title: "No repeated n-grams of", hint: "checkpoint's" },
];

export class Options {
  values = {};
  #onChange;
  #models = [];

  constructor(onChange) {
    this.#onChange = onChange;
    byId("option-grid").append(...NUMBERS.map((option) => this.#number(option)));
  }

  /** Offer the models and adapters of /v1/server. */
  offer(models) {
    this.#models = models;
    for (const old of byId("option-grid").querySelectorAll(".served-choice")) old.remove();
    if (models.length > 1) this.#choice("model", models.map(({ name }) => name), models[0].name);
    const adapters = this.#adapters();
    if (adapters.length) this.#choice("adapter", adapters, "none");
  }

  get model() {
    return this.#models.find(({ name }) => name === this.values.model) ?? this.#models[0] ?? null;
  }

  #adapters() {
    const engines = (this.model?.servers ?? []).flatMap((server) => server.engines ?? []);
    return [...new Set(engines.flatMap((engine) => engine.adapters ?? []))].sort();
  }

  #number({ name, title, hint, isDecimal }) {
    const id = `field-${name}`;
    const control = make("input", {
      id, type: "number", "data-field": name, placeholder: hint, step: isDecimal ? "any" : "1",
      inputmode: isDecimal ? "decimal" : "numeric", oninput: (event) => this.#set(name, event.target.value),
    });
    return make("div", { class: "field" }, make("label", { for: id }, title), control);
  }

  #choice(name, choices, standard) {
    const id = `field-${name}`;
    const options = choices.map((each) => make("option", { value: each }, each));
    if (!choices.includes(standard)) options.unshift(make("option", { value: "" }, standard));
    const control = make("select", {
      id, "data-field": name,
      onchange: (event) => {
        this.#set(name, event.target.value === standard ? "" : event.target.value);
        if (name === "model") this.#offerAdapters();
      },
    }, ...options);
    control.value = choices.includes(this.values[name]) ? this.values[name] : choices.includes(standard) ? standard : "";
    const field = make("div", { class: `field served-choice ${name}` }, make("label", { for: id }, inWords(name)), control);
    byId("option-grid").prepend(field);
  }

  #offerAdapters() {
    byId("option-grid").querySelector(".adapter")?.remove();
    delete this.values.adapter;
    const adapters = this.#adapters();
    if (adapters.length) this.#choice("adapter", adapters, "none");
    this.#onChange();
  }

  #set(name, value) {
    if (value === "") delete this.values[name];
    else this.values[name] = value;
    const count = Object.keys(this.values).length;
    byId("options-set").textContent = count ? `(${count} set)` : "";
    this.#onChange();
  }
}
