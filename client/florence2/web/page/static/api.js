// Requests to the API: JSON, and answers that stream as server-sent events.

const KEY = "florence2-api-key";

/** An error in words: the server's problem+json, or what went wrong on the way to it. */
export class Problem extends Error {
  constructor({ title, detail, field, requirement, request_id: requestId } = {}, status = 0, retryAfter = null) {
    super(detail || title || "The server gave no reason.");
    Object.assign(this, { title, field, requirement, requestId, status, retryAfter });
  }
}

export function saveKey(key) {
  if (key) sessionStorage.setItem(KEY, key);
  else sessionStorage.removeItem(KEY);
}

export const hasKey = () => Boolean(sessionStorage.getItem(KEY));

function headers(accept) {
  const key = sessionStorage.getItem(KEY);
  return { Accept: accept, ...(key ? { Authorization: `Bearer ${key}` } : {}) };
}

async function send(path, options) {
  let response;
  try {
    response = await fetch(path, { credentials: "same-origin", cache: "no-store", ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem({ title: "No connection", detail: "The web server cannot be reached. Is it still running?" });
  }
  if (response.ok) return response;
  const body = await response.json().catch(() => ({ title: response.statusText || `Status ${response.status}` }));
  throw new Problem(body, response.status, response.headers.get("Retry-After"));
}

/** The JSON at a path. */
export async function getJson(path) {
  return (await send(path, { headers: headers("application/json") })).json();
}

/** Whether requests would be answered now, and if not, why. */
export async function readiness() {
  try {
    const response = await fetch("ready", { cache: "no-store" });
    const { models = [] } = await response.json().catch(() => ({}));
    const servers = models.filter((model) => !model.ready).flatMap((model) => model.servers ?? []);
    return { isReady: response.ok, reason: servers.map(({ reason, engine }) => reason || engine).find(Boolean) ?? "" };
  } catch {
    return { isReady: false, reason: "the web server cannot be reached" };
  }
}

/** Send a form, and yield `{name, data}` for each event of its answer. Aborting the signal cancels the request. */
export async function* stream(path, form, signal) {
  const response = await send(path, { method: "POST", body: form, headers: headers("text/event-stream"), signal });
  try {
    for await (const event of serverSentEvents(response.body)) {
      if (event.name === "error") throw new Problem(event.data, event.data.status);
      yield event;
      if (event.name === "finished") return;
    }
  } catch (error) {
    if (error instanceof Problem || error.name === "AbortError") throw error;
    throw new Problem({ title: "Connection lost", detail: "The connection broke before the answer was complete." });
  }
  throw new Problem({ title: "Connection lost", detail: "The answer ended before it was complete." });
}

async function* serverSentEvents(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      // A trailing CR may be the first half of CR LF.
      const text = rest + value;
      const whole = text.endsWith("\r") ? text.slice(0, -1) : text;
      const blocks = whole.replace(/\r\n?/g, "\n").split("\n\n");
      rest = blocks.pop() + text.slice(whole.length);
      for (const block of blocks) {
        const event = parsedEvent(block);
        if (event) yield event;
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

function parsedEvent(block) {
  let name = "message";
  const data = [];
  for (const line of block.split("\n")) {
    const [, field, value] = /^([^:]*):? ?(.*)$/s.exec(line); // a line that starts with a colon is a comment
    if (field === "event") name = value;
    else if (field === "data") data.push(value);
  }
  return data.length ? { name, data: JSON.parse(data.join("\n")) } : null;
}
