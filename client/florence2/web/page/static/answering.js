// One request while it is answered: what its events have shown so far, and when.

import { Colors, answerRegion, markOf, shown, withoutTokens } from "./marks.js";

export class Answering {
  /** The finished answer, as /v1/... returns it; null before. */
  answer = null;
  firstItem = null;
  total = null;
  #colors = new Colors();
  #steps = [];
  #marks = [];
  #started = performance.now();

  /** @param task the row of /v1/tasks; @param inputs those that are sent. */
  constructor(task, inputs) {
    this.task = task;
    this.name = inputs.expression ?? "";
  }

  get elapsed() {
    return this.total ?? performance.now() - this.#started;
  }

  take({ name, data }) {
    const taken = { step_started: this.#startStep, text_delta: this.#addText, item_found: this.#addItem,
      step_finished: this.#finishStep, finished: this.#finish }[name];
    taken?.call(this, data); // events of newer servers, unknown here, are ignored
  }

  /** What is known so far: {marks, prose, errors}. */
  get view() {
    if (this.answer) return shown(this.answer.result, this.#colors, this.name);
    for (const step of this.#steps) {
      const mark = step?.item === undefined ? null : this.#marks[step.item];
      if (mark && step.result) answerRegion(mark, step.result);
      else if (mark) mark.said = withoutTokens(step.text) || null;
    }
    return { marks: this.#marks, prose: this.#prose(), errors: [] };
  }

  /** The generated text of each step, with its special tokens: a list of {title, text}. */
  get texts() {
    const given = this.answer?.steps?.map((step) => ({ ...step, text: step.text ?? step.error?.message ?? "" }));
    const steps = given ?? this.#steps.filter(Boolean);
    if (!steps.length || (this.answer && !given)) return [{ title: "", text: this.answer?.text ?? "" }];
    return steps.map(({ task, text, item }) => ({ title: task ? `${task}${item === undefined ? "" : ` of item ${item}`}` : "", text }));
  }

  #prose() {
    const isText = this.task.result === "text" || this.task.result === "grounded_caption";
    const text = withoutTokens(this.#steps[0]?.text ?? "");
    return isText && text ? [{ text, score: null }] : [];
  }

  #step(data) {
    return (this.#steps[data.step] ??= { text: "" });
  }

  #startStep(data) {
    Object.assign(this.#step(data), { task: data.task, item: data.item });
  }

  #addText(data) {
    this.#step(data).text += data.text;
    if (this.task.result === "text") this.firstItem ??= this.elapsed;
  }

  #addItem(data) {
    this.firstItem ??= this.elapsed;
    // Steps about single regions find no items of their own.
    this.#marks.push(markOf(data.item, this.#marks.length, this.#colors));
  }

  #finishStep(data) {
    this.#step(data).result = data.error ? { error: data.error } : data.result;
  }

  #finish(data) {
    this.answer = data;
    this.total = performance.now() - this.#started;
  }
}

/** What an answer cost, in words. */
export function facts({ answer, firstItem, total, task }) {
  const { usage } = answer;
  const first = task.result === "text" ? "First text" : "First item";
  const rate = usage.decode_milliseconds > 0 ? (usage.generated_tokens / usage.decode_milliseconds) * 1000 : null;
  return [
    ["Total", duration(total)],
    ...(firstItem === null ? [] : [[first, duration(firstItem)]]),
    ["Tokens", `${usage.generated_tokens}`],
    ...(rate ? [["Tokens/s", rate < 100 ? rate.toFixed(1) : rate.toFixed(0)]] : []),
    ...[["Queue", "queue"], ["Encode", "encode"], ["Decode", "decode"]].flatMap(([name, stage]) => {
      const spent = usage[`${stage}_milliseconds`];
      if (spent === null || spent === undefined) return [];
      return [[name, stage === "encode" && usage.image_embedding_cached ? "cached" : duration(spent)]];
    }),
  ];
}

export function duration(milliseconds) {
  if (milliseconds < 10) return `${milliseconds.toFixed(1)} ms`;
  return milliseconds < 1000 ? `${milliseconds.toFixed(0)} ms` : `${(milliseconds / 1000).toFixed(2)} s`;
}
