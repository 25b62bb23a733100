// What is sent: the task's inputs and the options, without those that are empty.

import { formValues } from "./code.js";

/** The inputs of a task that are given, by name: text, a list of phrases, or four numbers. */
export function inputsOf(task, values) {
  const given = task.inputs.map((input) => [input, valueOf(input, values[input.name])]);
  return Object.fromEntries(given.filter(([, value]) => value !== null).map(([input, value]) => [input.name, value]));
}

function valueOf(input, value) {
  if (value === undefined || value === null || value === "" || value === input.default) return null;
  if (!Array.isArray(value)) return value;
  if (input.name === "region") return value.every(Number.isFinite) ? value : null;
  return value.length > 1 ? value : (value[0] ?? null); // one phrase is a text
}

/** The form of a request; its answer streams. */
export function formOf(task, values, options, picture) {
  const form = new FormData();
  form.append("image", picture.blob, picture.name);
  for (const [name, value] of Object.entries({ ...inputsOf(task, values), ...options })) {
    for (const each of formValues(name, value)) form.append(name, each);
  }
  form.append("stream", "true");
  return form;
}
