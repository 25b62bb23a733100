// The request as Python, curl and JSON.

const MOST_BYTES_IN_JSON = 1_000_000;
/** In place of Triton's address, which callers of the web server need not know. */
const TRITON = "localhost:8001";

/** @param request {task, inputs, options, name, minScore}: the inputs and options as they are sent, by name.
 *  @param served {isInProcess, checkpoint, origin, hasKey}: where the web server is, and what is behind it. */
export function python(request, served) {
  const { task, inputs, options, name, minScore } = request;
  const { model, ...others } = options;
  const positional = task.inputs.filter((input) => input.required && input.name in inputs).map((input) => input.name);
  const keywords = { ...omit(inputs, positional), ...others, ...(minScore > 0 ? { min_score: minScore } : {}) };
  const given = [
    literal(name),
    ...positional.map((each) => literal(inputs[each])),
    ...Object.entries(keywords).map(([each, value]) => `${each}=${literal(value)}`),
  ];
  const call = `client.${task.name.replaceAll("-", "_")}(${given.join(", ")})`;
  const client = [
    ...(served.isInProcess ? [`transport=InProcess(${engineOf(served.checkpoint, options.adapter)})`] : [literal(TRITON)]),
    ...(model && !served.isInProcess ? [`model=${literal(model)}`] : []),
  ].join(", ");
  return [
    "import florence2",
    ...(served.isInProcess ? ["from florence2_server.in_process import InProcess"] : []),
    "",
    `with florence2.Client(${client}) as client:`,
    `    result = ${call}`,
    "    print(result.to_json(indent=2))",
  ].join("\n");
}

/** The arguments of an engine in one's own process; the demo checkpoint is the default. The page knows no folders. */
function engineOf(checkpoint, adapter) {
  return [
    ...(!checkpoint || checkpoint.endsWith("demo_checkpoint") ? [] : [literal(checkpoint)]),
    ...(adapter ? [`adapters={${literal(adapter)}: ${literal(`path/to/${adapter}`)}}`] : []),
  ].join(", ");
}

export function curl({ task, inputs, options, name, minScore }, served) {
  const fields = Object.entries({ ...inputs, ...options, ...(minScore > 0 ? { min_score: minScore } : {}) });
  const parts = [
    `curl ${served.origin}${task.path}`,
    ...(served.hasKey ? ['-H "Authorization: Bearer $FLORENCE2_API_KEY"'] : []),
    `-F ${shell(`image=@"${name.replaceAll(/["\\]/g, "\\$&")}"`)}`,
    // --form-string, because -F gives a meaning to @, < and ; in values.
    ...fields.flatMap(([field, value]) => formValues(field, value).map((each) => `--form-string ${shell(`${field}=${each}`)}`)),
  ];
  return parts.join(" \\\n  ");
}

/** The JSON body; `image` is its base64 text, or words in its place. */
export function body({ inputs, options, minScore }, image) {
  return JSON.stringify({ image, ...inputs, ...options, ...(minScore > 0 ? { min_score: minScore } : {}) }, null, 2);
}

/** A picture as base64 text; words in place of a large one. */
export async function base64(blob, name) {
  if (blob.size > MOST_BYTES_IN_JSON) return inPlaceOf(name);
  const bytes = new Uint8Array(await blob.arrayBuffer());
  let text = "";
  for (let at = 0; at < bytes.length; at += 0x8000) text += String.fromCharCode(...bytes.subarray(at, at + 0x8000));
  return btoa(text);
}

export const inPlaceOf = (name) => `<base64 of ${name}>`;

/** The values of a form's field. */
export function formValues(name, value) {
  if (name === "region") return [value.join(",")];
  return Array.isArray(value) ? value : [String(value)];
}

function literal(value) {
  if (Array.isArray(value)) return `[${value.map(literal).join(", ")}]`;
  if (typeof value === "boolean") return value ? "True" : "False";
  return JSON.stringify(value);
}

const shell = (text) => (/^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`);

const omit = (values, names) => Object.fromEntries(Object.entries(values).filter(([name]) => !names.includes(name)));
