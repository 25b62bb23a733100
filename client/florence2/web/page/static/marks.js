// From an answer to marks: what is drawn on the picture and listed beside it. Pixels of the picture as displayed.

const PALETTE = [
  "#e63946", "#1d78d8", "#2ea043", "#ffb703", "#8e44ad", "#fb6f1e", "#00bbc6", "#e954b4", "#96c828", "#79553c",
  "#5a5ae0", "#00806e",
];

/** Black or white, whichever is legible on a color of the palette. */
export function ink(color) {
  const [red, green, blue] = [1, 3, 5].map((at) => parseInt(color.slice(at, at + 2), 16));
  return 0.299 * red + 0.587 * green + 0.114 * blue > 140 ? "#000" : "#fff";
}

/** Colors by label, in the order of first use; the same label keeps its color while items stream in. */
export class Colors {
  #places = new Map();

  of(label) {
    if (!this.#places.has(label)) this.#places.set(label, this.#places.size);
    return PALETTE[this.#places.get(label) % PALETTE.length];
  }
}

/** The mark of an item of detections, a segmentation or text regions; `name` is the label of one that has none. */
export function markOf(item, index, colors, name = "") {
  const label = item.label || item.text || name;
  const polygons = [...(item.polygons ?? []), ...(item.quad ? [pairs(item.quad)] : [])].filter(isDrawable);
  const box = item.box && item.box.every(Number.isFinite) ? item.box : null;
  const shape = { box: polygons.length ? null : box, polygons };
  const color = colors.of(label || `#${index}`);
  return { index, label, score: item.score ?? null, ...shape, bounds: bounds(shape), isText: Boolean(item.quad), color, said: null };
}

/** Everything that a result shows: `marks`, and `prose`, the texts that belong to the whole picture. */
export function shown(result, colors = new Colors(), name = "") {
  const empty = { marks: [], prose: [], errors: [] };
  if (!result) return empty;
  if (result.error) return { ...empty, errors: [result.error.message] };
  switch (result.type) {
    case "text":
      return { ...empty, prose: [{ text: result.text, score: result.score ?? null }] };
    case "grounded_caption": {
      const found = shown(result.detections, colors);
      return { ...found, prose: shown(result.caption).prose };
    }
    case "region_analysis": {
      const found = shown(result.detections, colors);
      for (const region of result.regions) answerRegion(found.marks[region.item], region.result);
      return found;
    }
    case "task_results": {
      const parts = result.outcomes.map((outcome) => shown(outcome, colors));
      return {
        marks: parts.flatMap((part) => part.marks).map((mark, index) => ({ ...mark, index })),
        prose: parts.flatMap((part) => part.prose),
        errors: parts.flatMap((part) => part.errors),
      };
    }
    default:
      return { ...empty, marks: (result.items ?? []).map((item, index) => markOf(item, index, colors, name)) };
  }
}

/** Add the answer about a region to its mark. */
export function answerRegion(mark, result) {
  if (!mark || !result) return;
  if (result.error) Object.assign(mark, { said: result.error.message, isFailed: true });
  else if (result.type === "text") mark.said = result.text;
  else {
    mark.polygons = (result.items ?? []).flatMap((item) => item.polygons).filter(isDrawable);
    mark.said = mark.polygons.length ? null : "no outline";
  }
}

const pairs = (numbers) => numbers.flatMap((x, at) => (at % 2 ? [] : [[x, numbers[at + 1]]]));

const isDrawable = (polygon) => polygon.length > 1 && polygon.flat().every(Number.isFinite);

function bounds({ box, polygons }) {
  const points = polygons.length ? polygons.flat() : box ? [box.slice(0, 2), box.slice(2)] : [];
  if (!points.length) return null;
  const [xs, ys] = [points.map(([x]) => x), points.map(([, y]) => y)];
  return [Math.min(...xs), Math.min(...ys), Math.max(...xs), Math.max(...ys)];
}

/** Generated text without the model's special tokens, for display while an answer is incomplete. */
export const withoutTokens = (text) => text.replace(/<(?:\/?s|pad|unk|loc_\d+|sep|poly|\/poly|and)>/g, "").trim();
