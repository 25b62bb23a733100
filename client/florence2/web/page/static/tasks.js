// The choice of a task: first its kind, then the task.

import { byId, make } from "./dom.js";
import { inWords } from "./fields.js";

const GROUPS = ["Find", "Describe", "Read", "Segment", "Cascades", "Prompt"];

/** The kind of a task, by the words of its name and by what it answers. */
function groupOf({ name, result, is_cascade: isCascade }) {
  if (isCascade) return "Cascades";
  if (name === "generate") return "Prompt";
  if (name.startsWith("read")) return "Read";
  if (name.startsWith("segment")) return "Segment";
  return result === "text" ? "Describe" : "Find";
}

export class TaskChoice {
  /** The chosen row of /v1/tasks. */
  task = null;
  #tasks = [];
  #lastOf = new Map();
  #onChoose;

  constructor(onChoose) {
    this.#onChoose = onChoose;
  }

  offer(tasks) {
    this.#tasks = tasks.filter((task) => task.name !== "run");
    const groups = GROUPS.filter((group) => this.#tasks.some((task) => groupOf(task) === group));
    byId("groups").replaceChildren(...groups.map((group) => radio("group", group, group, () => this.#show(group))));
    const kept = this.#tasks.find((task) => task.name === this.task?.name);
    this.#choose(kept ?? this.#tasks.find((task) => groupOf(task) === groups[0]));
  }

  chooseFirst(condition) {
    const task = this.#tasks.find(condition);
    if (task) this.#choose(task);
  }

  #show(group) {
    this.#choose(this.#lastOf.get(group) ?? this.#tasks.find((task) => groupOf(task) === group));
  }

  #choose(task) {
    const group = groupOf(task);
    for (const input of byId("groups").querySelectorAll("input")) input.checked = input.value === group;
    const shownNow = byId("tasks").dataset.group === group;
    if (!shownNow) {
      const rows = this.#tasks.filter((each) => groupOf(each) === group);
      byId("tasks").dataset.group = group;
      byId("tasks").replaceChildren(...rows.map((row) => radio("task", row.name, titleOf(row), () => this.#choose(row))));
    }
    for (const input of byId("tasks").querySelectorAll("input")) input.checked = input.value === task.name;
    this.task = task;
    this.#lastOf.set(group, task);
    this.#onChoose(task);
  }
}

const titleOf = ({ title, name }) => (title && title.length <= 32 ? title : inWords(name));

function radio(name, value, title, onChoose) {
  return make("label", {}, make("input", { type: "radio", name, value, onchange: onChoose }), make("span", {}, title));
}
