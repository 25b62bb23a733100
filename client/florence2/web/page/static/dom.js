// Elements. Text from a model or a user becomes text nodes and attributes only, never markup.

export const byId = (id) => document.getElementById(id);

/** An element with properties (`on...` for listeners, `data-...`/`aria-...`/others as attributes) and children. */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  setAttributes(element, attributes);
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

export function makeSvg(tag, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  setAttributes(element, attributes);
  element.append(...children);
  return element;
}

function setAttributes(element, attributes) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
}

/** Announce a sentence to screen readers. */
export function announce(sentence) {
  byId("announce").textContent = sentence;
}

/** Tabs: arrow keys move between them, and each shows its panel. Calls `onSelect` with the tab's id. */
export function setUpTabs(list, onSelect) {
  const tabs = [...list.querySelectorAll("[role=tab]")];
  const select = (chosen) => {
    for (const tab of tabs) {
      tab.setAttribute("aria-selected", String(tab === chosen));
      tab.tabIndex = tab === chosen ? 0 : -1;
    }
    onSelect(chosen.id);
  };
  list.addEventListener("click", (event) => {
    const tab = event.target.closest("[role=tab]");
    if (tab) select(tab);
  });
  list.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1, Home: -tabs.length, End: tabs.length }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    const now = tabs.indexOf(document.activeElement);
    const next = Math.abs(step) > 1 ? (step > 0 ? tabs.length - 1 : 0) : (now + step + tabs.length) % tabs.length;
    tabs[next].focus();
    select(tabs[next]);
  });
}

/** Copy text, and say so on the button. Falls back to a hidden text area where the clipboard API is missing (HTTP). */
export async function copy(text, button) {
  let done = true;
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = make("textarea", { class: "unseen", "aria-hidden": "true" });
    area.value = text;
    document.body.append(area);
    area.select();
    done = document.execCommand("copy");
    area.remove();
    button.focus();
  }
  flash(button, done ? "Copied" : "Not copied");
}

function flash(button, word) {
  button.dataset.word ??= button.textContent;
  button.textContent = word;
  announce(word);
  clearTimeout(button.timer);
  button.timer = setTimeout(() => { button.textContent = button.dataset.word; }, 1600);
}

/** Offer a blob as a download. */
export function save(blob, name) {
  const url = URL.createObjectURL(blob);
  const link = make("a", { href: url, download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}
