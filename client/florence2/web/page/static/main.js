// The playground: connects the picture, the form, the request and its answer.

import { Answering, duration, facts } from "./answering.js";
import { Problem, getJson, hasKey, readiness, saveKey, stream } from "./api.js";
import * as code from "./code.js";
import { announce, byId, copy, save, setUpTabs } from "./dom.js";
import { fieldsOf, isFolded, showRegion } from "./fields.js";
import { formOf, inputsOf } from "./request.js";
import { History } from "./history.js";
import { Options } from "./options.js";
import { draw, highlight } from "./overlay.js";
import { Picture } from "./picture.js";
import { clearProblems, showProblem } from "./problems.js";
import { RegionBox } from "./region.js";
import { Results } from "./results.js";
import { markedPicture } from "./saving.js";
import { TaskChoice } from "./tasks.js";

const values = {};
let answering = null;
let view = { marks: [], prose: [] };
let running = null;
let language = "tab-python";

const picture = new Picture(onPicture, redraw);
const region = new RegionBox(picture, (value) => {
  values.region = value;
  showRegion(byId("inputs"), value);
  showCode();
});
const options = new Options(showCode);
const choice = new TaskChoice(onTask);
const history = new History(restore);
const results = new Results({ onPoint: point, onUse: useRegion });

function onPicture() {
  running?.abort();
  region.set(null);
  values.region = null;
  showRegion(byId("inputs"), null);
  forget();
  byId("run").disabled = !choice.task;
  showCode();
}

function onTask(task) {
  clearProblems();
  byId("description").textContent = task.description ?? "";
  // Optional inputs are folded away: what was typed for another task must not be sent unseen.
  for (const input of task.inputs.filter(isFolded)) delete values[input.name];
  byId("inputs").replaceChildren(...fieldsOf(task.inputs, values, (name) => {
    if (name === "region") region.set(values.region);
    showCode();
  }));
  region.enable(task.inputs.some((input) => input.name === "region"));
  byId("run").disabled = !picture.current;
  showCode();
}

/** Take an item's box as the region, and offer the tasks about regions. */
function useRegion(box) {
  values.region = box.map(Math.round);
  if (!choice.task.inputs.some((input) => input.name === "region")) choice.chooseFirst((task) => task.inputs.some((input) => input.name === "region"));
  region.set(values.region);
  showRegion(byId("inputs"), values.region);
  showCode();
  announce("The box is the region of the next request.");
  byId("run").focus();
}

async function run() {
  clearProblems();
  forget();
  const { task } = choice;
  answering = new Answering(task, inputsOf(task, values));
  running = new AbortController();
  const [own, { signal }] = [answering, running];
  setRunning(true);
  try {
    for await (const event of stream(task.path.slice(1), formOf(task, values, options.values, picture.current), signal)) {
      if (own !== answering) return;
      own.take(event);
      schedule();
    }
    finish(own);
  } catch (error) {
    if (own !== answering) return;
    running = null;
    fail(error);
  } finally {
    if (own === answering) setRunning(false);
  }
}

function finish(own) {
  const { answer } = own;
  if (picture.current && !picture.current.size) {
    picture.current.reported = answer.image_size;
    picture.rescale();
  }
  const isTruncated = answer.finish_reason === "length";
  byId("note").textContent = "The answer was truncated at the maximum number of tokens. What is complete is shown.";
  byId("note").hidden = !isTruncated;
  refresh();
  results.showFacts(facts(own));
  results.showJson(JSON.stringify(answer, null, 2));
  for (const id of ["copy-result", "save-json"]) byId(id).disabled = false;
  byId("save-png").disabled = !picture.size;
  announce(`${summary()} ${duration(own.total)}.`);
  history.add({ answering: own, picture: picture.current, summary: summary() });
}

function summary() {
  const { marks, prose } = view;
  const found = marks.length ? `${marks.length} ${marks.length === 1 ? "item" : "items"}` : "";
  return [found, ...prose.map(({ text }) => text)].filter(Boolean).join(": ") || "Nothing found";
}

function fail(error) {
  if (answering) refresh();
  if (error.name === "AbortError") {
    byId("note").textContent = "Stopped. The request was cancelled on the server.";
    byId("note").hidden = false;
    announce("Stopped.");
    return;
  }
  if (!(error instanceof Problem)) {
    console.error(error);
    error = new Problem({ title: "The page failed", detail: String(error) });
  }
  if (error.status === 401) return askForKey(error);
  if (!showProblem(error) && [0, 503].includes(error.status)) showServed();
}

function setRunning(isOn) {
  byId("running").hidden = !isOn;
  byId("stop").hidden = !isOn;
  byId("run").hidden = isOn;
  byId("frame").setAttribute("aria-busy", String(isOn));
  if (isOn) {
    if (matchMedia("(max-width: 900px)").matches) byId("frame").scrollIntoView({ block: "nearest", behavior: "smooth" });
    announce("Running.");
    byId("stop").focus({ preventScroll: true });
    tick();
  } else {
    if ([document.body, byId("stop")].includes(document.activeElement)) byId("run").focus({ preventScroll: true });
    byId("clock").value = "";
    running = null;
  }
}

function tick() {
  if (!running) return;
  byId("clock").value = `${(answering.elapsed / 1000).toFixed(1)} s`;
  setTimeout(tick, 100);
}

let frame = 0;
function schedule() {
  frame ||= requestAnimationFrame(() => { frame = 0; if (answering) refresh(); });
}

/** Show what is known of the answer. */
function refresh() {
  view = answering.view;
  const scores = view.marks.map((mark) => mark.score).filter((score) => score !== null);
  byId("threshold").hidden = !scores.length;
  const isStreaming = Boolean(running) && !answering.answer;
  results.show({ ...view, marks: visible() }, isStreaming, isStreaming ? "Waiting for the first item…" : emptyWords());
  results.showText(answering.texts);
  redraw();
}

function emptyWords() {
  if (!answering.answer) return "No result.";
  return view.marks.length ? "Every item is below the minimum score." : "The model found nothing.";
}

const minScore = () => Number(byId("min-score").value);
const visible = () => view.marks.filter((mark) => mark.score === null || mark.score >= minScore());

function redraw() {
  const marks = byId("marks");
  marks.toggleAttribute("hidden", !picture.size);
  if (picture.size) draw(marks, visible(), answering?.answer?.image_size ?? picture.size, picture.unit);
  region.draw();
}

function point(index, isScrolled = false) {
  highlight(byId("marks"), index);
  results.highlight(index, isScrolled);
}

function forget() {
  answering = null;
  view = { marks: [], prose: [] };
  clearProblems();
  byId("note").hidden = true;
  byId("threshold").hidden = true;
  for (const id of ["copy-result", "save-json", "save-png"]) byId(id).disabled = true;
  results.show(view, false, "No result yet. Choose a task and run it.");
  results.showText([]);
  results.showJson("");
  results.showFacts([]);
  redraw();
}

async function restore(entry) {
  if (entry.picture !== picture.current) await picture.use(entry.picture.blob, entry.picture.name);
  forget();
  answering = entry.answering;
  refresh();
  results.showFacts(facts(answering));
  results.showJson(JSON.stringify(answering.answer, null, 2));
  for (const id of ["copy-result", "save-json", "save-png"]) byId(id).disabled = false;
  announce(entry.summary);
}

function currentRequest() {
  const { task } = choice;
  const isFiltered = ["detections", "segmentation", "text_regions", "grounded_caption"].includes(task.result);
  return {
    task, inputs: inputsOf(task, values), options: options.values, name: picture.current?.name ?? "picture.jpg",
    minScore: isFiltered ? minScore() : 0,
  };
}

function served() {
  const server = options.model?.servers?.[0];
  const checkpoint = server?.engines?.[0]?.checkpoint ?? "";
  return { isInProcess: server?.is_in_process ?? false, checkpoint, origin: location.origin, hasKey: hasKey() };
}

function showCode() {
  if (!choice.task) return;
  const request = currentRequest();
  const written = {
    "tab-python": () => code.python(request, served()),
    "tab-curl": () => code.curl(request, served()),
    "tab-body": () => code.body(request, code.inPlaceOf(request.name)),
  };
  byId("code").textContent = written[language]();
}

async function copyCode(event) {
  const button = event.currentTarget;
  let text = byId("code").textContent;
  if (language === "tab-body" && picture.current) {
    const request = currentRequest();
    text = code.body(request, await code.base64(picture.current.blob, request.name));
  }
  await copy(text, button);
}

async function showServed() {
  const { isReady, reason } = await readiness();
  const engine = options.model?.servers?.[0]?.engines?.[0];
  const parts = [engine?.checkpoint?.split("/").pop(), engine?.device, engine?.dtype].filter(Boolean);
  byId("served").dataset.state = isReady ? "ready" : "waiting";
  byId("served-text").textContent = isReady ? ["Ready", ...parts].join(" · ") : `Not ready${reason ? `: ${reason}` : ""}`;
  byId("served").title = byId("served-text").textContent;
  if (!isReady) setTimeout(showServed, 5000);
}

function askForKey(problem) {
  byId("key-form").hidden = false;
  byId("key").focus();
  if (hasKey()) showProblem(problem);
  saveKey("");
}

async function load() {
  try {
    const [{ tasks, options: declared }, server] = await Promise.all([getJson("v1/tasks"), getJson("v1/server").catch(() => ({ models: [] }))]);
    byId("key-form").hidden = true;
    options.declare(declared ?? []);
    options.offer(server.models);
    choice.offer(tasks);
  } catch (error) {
    fail(error);
  }
  await showServed();
}

byId("task").addEventListener("submit", (event) => {
  event.preventDefault();
  if (!running && choice.task && picture.current) run();
});
byId("stop").addEventListener("click", () => running?.abort());
byId("save-key").addEventListener("click", () => { saveKey(byId("key").value.trim()); load(); });
byId("key").addEventListener("keydown", (event) => {
  if (event.key !== "Enter") return;
  event.preventDefault();
  byId("save-key").click();
});
byId("min-score").addEventListener("input", () => {
  byId("min-score-value").value = minScore().toFixed(2);
  if (answering) refresh();
  showCode();
});
byId("marks").addEventListener("pointerover", (event) => {
  const mark = event.target.closest(".mark");
  if (mark) point(Number(mark.dataset.index), true);
});
byId("marks").addEventListener("pointerout", () => point(null));
setUpTabs(byId("code-tabs"), (id) => {
  language = id;
  byId("code-panel").setAttribute("aria-labelledby", id);
  showCode();
});
setUpTabs(byId("result-tabs"), (id) => {
  for (const name of ["list", "text", "json"]) byId(`view-${name}`).hidden = id !== `tab-${name}`;
});
byId("copy-code").addEventListener("click", copyCode);
byId("copy-result").addEventListener("click", (event) => copy(byId("json").textContent, event.currentTarget));
byId("save-json").addEventListener("click", () => save(new Blob([byId("json").textContent], { type: "application/json" }), `${choice.task.name}.json`));
byId("save-png").addEventListener("click", async () => {
  const image = picture.current.size ? picture.image : null;
  save(await markedPicture(image, visible(), answering.answer.image_size ?? picture.size), `${choice.task.name}.png`);
});
addEventListener("keydown", (event) => {
  if (event.key === "Escape") running?.abort();
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) byId("task").requestSubmit();
});

load();
picture.useSample("scene.png");
