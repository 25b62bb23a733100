// Controls for the inputs of a task, built from the table at /v1/tasks. Values are kept when the task changes.

import { make } from "./dom.js";

/** A name of the API in words: "region_task" is "Region task". */
export const inWords = (name) => (name[0].toUpperCase() + name.slice(1)).replaceAll(/[-_]/g, " ");

export const kindOf = ({ name, type = "", choices }) => {
  if (choices?.length || type === "boolean") return "choice";
  if (name === "region") return "region";
  if (/phrases|array|list/.test(type)) return "phrases";
  return /int|number|float/.test(type) ? "number" : "text";
};

/** Whether few people need an input, so that its control is folded away. */
export const isFolded = (input) => !input.required && kindOf(input) !== "choice";

/** The controls of a task's inputs: choices side by side, and what few people need folded away. */
export function fieldsOf(inputs, values, onChange) {
  const build = (input) => fieldOf(input, values, onChange);
  const choices = inputs.filter((input) => kindOf(input) === "choice").map(build);
  const folded = inputs.filter(isFolded).map(build);
  return [
    ...inputs.filter((input) => input.required && kindOf(input) !== "choice").map(build),
    ...(choices.length > 1 ? [make("div", { class: "pair" }, ...choices)] : choices),
    ...(folded.length ? [make("details", { class: "more" }, make("summary", {}, "More inputs"), ...folded)] : []),
  ];
}

/** The control of an input or option. Calls `onChange` after each change of `values[input.name]`. */
export function fieldOf(input, values, onChange) {
  const change = (value) => {
    values[input.name] = value;
    onChange(input.name);
  };
  return { choice, region, phrases, number: single, text: single }[kindOf(input)](input, values[input.name], change);
}

const PLACEHOLDERS = { caption: "a red circle", query: "a red circle", expression: "red circle", prompt: "What is shown?" };

function titleOf(input) {
  if (input.title) return [input.title];
  return input.required ? [inWords(input.name)] : [`${inWords(input.name)} `, make("span", { class: "optional" }, "(optional)")];
}

/** The value of a control in its input's type; "" if there is none. */
function typed(input, text) {
  if (text === "") return text;
  if (kindOf(input) === "choice") return (input.choices ?? [true, false]).find((each) => String(each) === text) ?? text;
  return kindOf(input) === "number" ? Number(text) : text;
}

function single(input, value = "", change) {
  const id = `field-${input.name}`;
  const control = make("input", {
    id, "data-field": input.name, autocomplete: "off", placeholder: input.placeholder ?? PLACEHOLDERS[input.name],
    ...(kindOf(input) === "number" ? { type: "number", inputmode: "decimal", step: input.type === "integer" ? 1 : "any" } : { type: "text", dir: "auto" }),
    oninput: (event) => change(typed(input, event.target.value.trim())),
  });
  control.value = value;
  return make("div", { class: "field" }, make("label", { for: id, title: input.description }, ...titleOf(input)), control);
}

function choice(input, value, change) {
  const id = `field-${input.name}`;
  const standard = input.default ?? null;
  const choices = (input.choices ?? [true, false]).map(String);
  const options = choices.map((each) => make("option", { value: each }, each === "" ? "none" : each === standard && choices.length > 2 ? `${each} (default)` : each));
  if (!input.required && standard === null) options.unshift(make("option", { value: "" }, "default"));
  const control = make("select", { id, "data-field": input.name, onchange: (event) => change(typed(input, event.target.value)) }, ...options);
  control.value = value ?? standard ?? control.value;
  return make("div", { class: "field" }, make("label", { for: id, title: input.description }, input.title ?? inWords(input.name)), control);
}

function phrases(input, value, change) {
  const rows = value?.length ? [...value] : [""];
  const list = make("ul", { class: "phrases" });
  const field = make("fieldset", { class: "field", "data-field": input.name });
  const report = () => change(rows.map((row) => row.trim()).filter(Boolean));
  const show = (focused = null) => {
    list.replaceChildren(...rows.map((row, at) => rowOf(input, rows, at, { report, show })));
    if (focused !== null) list.querySelectorAll("input")[Math.max(0, focused)]?.focus();
  };
  const add = make("button", { type: "button", class: "add", onclick: () => show(rows.push("") - 1) }, "+ Add a phrase");
  field.append(make("legend", {}, ...titleOf(input)), list, add);
  show();
  return field;
}

function rowOf(input, rows, at, { report, show }) {
  const remove = () => {
    rows.splice(at, 1);
    if (!rows.length) rows.push("");
    report();
    show(at - 1);
  };
  const control = make("input", {
    type: "text", dir: "auto", autocomplete: "off", "aria-label": `${inWords(input.name)}, phrase ${at + 1}`,
    placeholder: at ? "" : PLACEHOLDERS[input.name],
    oninput: (event) => { rows[at] = event.target.value; report(); },
    onkeydown: (event) => {
      if (event.isComposing || event.ctrlKey || event.metaKey) return;
      if (event.key === "Enter" && rows[at].trim()) {
        event.preventDefault();
        rows.splice(at + 1, 0, "");
        show(at + 1);
      } else if (event.key === "Backspace" && !rows[at] && rows.length > 1) {
        event.preventDefault();
        remove();
      }
    },
    onpaste: (event) => {
      const lines = event.clipboardData.getData("text").split(/\r?\n/).map((line) => line.trim()).filter(Boolean);
      if (lines.length < 2) return;
      event.preventDefault();
      rows.splice(at, rows[at] ? 0 : 1, ...lines);
      report();
      show(at + lines.length - 1);
    },
  });
  control.value = rows[at];
  const button = make("button", { type: "button", "aria-label": `Remove phrase ${at + 1}`, onclick: remove }, "×");
  return make("li", {}, control, button);
}

function region(input, value, change) {
  const sides = ["Left", "Top", "Right", "Bottom"];
  const controls = sides.map((side, at) => {
    const control = make("input", {
      type: "number", step: "any", inputmode: "decimal", "data-side": at,
      oninput: () => {
        const numbers = controls.map((each) => (each.value === "" ? NaN : Number(each.value)));
        change(numbers.some((each) => !Number.isNaN(each)) ? numbers : null);
      },
    });
    control.value = value?.[at] ?? "";
    return control;
  });
  return make(
    "fieldset",
    { class: "field", "data-field": input.name },
    make("legend", {}, "Region"),
    make("p", { class: "hint" }, "Drag a box on the picture, or type its sides in pixels."),
    make("div", { class: "sides" }, ...sides.map((side, at) => make("label", {}, side, controls[at]))),
  );
}

/** Show a region in its number fields, after it was dragged. */
export function showRegion(container, value) {
  for (const control of container.querySelectorAll("[data-side]")) control.value = value?.[control.dataset.side] ?? "";
}
