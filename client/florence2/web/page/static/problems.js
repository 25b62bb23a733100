// Errors in words, next to the control that they name.

import { byId, make } from "./dom.js";

// Fields of messages whose control has another name.
const CONTROLS = { phrases: "caption", queries: "query", text: "prompt" };

const TITLES = {
  400: "Invalid request", 401: "API key required", 413: "Too large", 503: "Unavailable", 504: "Timed out",
};

/** Remove what earlier errors have shown. */
export function clearProblems() {
  for (const shown of document.querySelectorAll(".field > .problem")) shown.remove();
  for (const control of document.querySelectorAll("[aria-invalid]")) {
    control.removeAttribute("aria-invalid");
    control.removeAttribute("aria-describedby");
  }
  byId("problem").hidden = true;
  byId("image-problem").hidden = true;
}

/** Show a problem; returns whether it is about a control, which then has the focus. */
export function showProblem(problem) {
  const control = problem.field ? controlOf(problem.field) : null;
  if (control?.id === "file") {
    byId("image-problem").textContent = problem.message;
    byId("image-problem").hidden = false;
  } else if (control) markControl(control, problem);
  const retry = problem.retryAfter ? ` Try again in ${problem.retryAfter} s.` : "";
  byId("problem").replaceChildren(
    make("strong", {}, TITLES[problem.status] ?? problem.title ?? "Request failed"),
    problem.message + retry,
    ...(problem.requestId ? [make("small", {}, `request ${problem.requestId}`)] : []),
  );
  byId("problem").hidden = false;
  return Boolean(control);
}

/** The control that a field of a request names: "generation.num_beams", "region_to_ocr.region", "image". */
function controlOf(field) {
  const names = field.split(".").map((name) => name.replace(/\[.*/, "")).reverse();
  for (const name of names.flatMap((each) => [each, CONTROLS[each] ?? each])) {
    const control = document.querySelector(`[data-field="${CSS.escape(name)}"]`);
    if (control) return control;
  }
  return null;
}

function markControl(control, problem) {
  const field = control.closest(".field");
  const input = control.matches("input, select") ? control : control.querySelector("input");
  const note = make("p", { class: "problem", id: `problem-of-${control.dataset.field}` }, problem.message);
  field.append(note);
  for (const each of control.matches("input, select") ? [control] : control.querySelectorAll("input")) {
    each.setAttribute("aria-invalid", "true");
    each.setAttribute("aria-describedby", note.id);
  }
  const details = control.closest("details");
  if (details) details.open = true;
  input?.focus();
}
