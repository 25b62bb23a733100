// Where the labels of marks go: each beside its own mark, inside the picture, hiding as little as possible.

const LONGEST = 30; // letters of a tag; the list has the whole label
const HEIGHT = 20;
const PADDING = 7;
// A tag that hides more than this of another one is shown only when its mark is pointed at.
const CROWDED = 0.35;
// Tags that together hide more than this part of the picture are shown only when their marks are pointed at.
const MOST_HIDDEN = 0.3;

export const TAG_FONT = "-apple-system, 'Segoe UI', Roboto, 'Noto Sans', 'Liberation Sans', Arial, sans-serif";

let pen = null;

/** Places for the tags of marks.
 * @param marks with `bounds`, in pixels of the picture.
 * @param size [width, height] of the picture.
 * @param unit pixels of the picture per pixel of the screen.
 * @returns a list of {mark, text, x, y, width, height, isCrowded}.
 */
export function placeTags(marks, size, unit) {
  const placed = [];
  let room = MOST_HIDDEN * size[0] * size[1];
  const named = marks.filter((mark) => mark.label);
  // Small marks first: they have the fewest places.
  for (const mark of [...named].sort((one, other) => area(one.bounds) - area(other.bounds))) {
    const text = tagText(mark);
    const [width, height] = [Math.min(textWidth(text) + 2 * PADDING, size[0] / unit) * unit, HEIGHT * unit];
    const best = places(mark.bounds, width, height, unit)
      .map((place) => inside(place, size))
      .map((place, order) => ({ ...place, cost: cost(place, placed, marks, mark) + 0.02 * order }))
      .reduce((one, other) => (other.cost < one.cost ? other : one));
    const isCrowded =
      room < width * height || placed.some((tag) => !tag.isCrowded && overlap(best, tag) > CROWDED * width * height);
    if (!isCrowded) room -= width * height;
    placed.push({ mark, text, ...best, isCrowded });
  }
  return placed;
}

function tagText({ label, score }) {
  const letters = [...label.replace(/\s+/g, " ")];
  const short = letters.length > LONGEST ? `${letters.slice(0, LONGEST - 1).join("").trimEnd()}…` : letters.join("");
  // Isolates keep the score on its side of a label that is written from right to left.
  return score === null ? short : `\u2068${short}\u2069 ${score.toFixed(2)}`;
}

function textWidth(text) {
  pen ??= document.createElement("canvas").getContext("2d");
  pen.font = `600 12.5px ${TAG_FONT}`;
  return pen.measureText(text).width;
}

function places([left, top, right, bottom], width, height, unit) {
  const gap = 3 * unit;
  const at = (x, y) => ({ x, y, width, height });
  return [
    at(left - unit, top - height - gap), at(right - width + unit, top - height - gap),
    at(left - unit, bottom + gap), at(right - width + unit, bottom + gap),
    at(left + gap, top + gap), at(right - width - gap, top + gap),
    at(left + gap, bottom - height - gap), at(right - width - gap, bottom - height - gap),
    at(right + gap, top), at(left - width - gap, top),
    at((left + right - width) / 2, (top + bottom - height) / 2),
  ];
}

function inside(place, [width, height]) {
  const x = Math.max(0, Math.min(place.x, width - place.width));
  const y = Math.max(0, Math.min(place.y, height - place.height));
  const moved = (Math.abs(x - place.x) + Math.abs(y - place.y)) / place.height;
  return { ...place, x, y, moved };
}

// A unit is hiding a whole tag, or a whole mark of the tag's size.
function cost(place, placed, marks, own) {
  const tag = place.width * place.height;
  let sum = 0.3 * place.moved;
  for (const other of placed) sum += (3 * overlap(place, other)) / tag;
  for (const mark of marks) {
    const [left, top, right, bottom] = mark.bounds;
    const hidden = overlap(place, { x: left, y: top, width: right - left, height: bottom - top });
    sum += ((mark === own ? 0.4 : 0.8) * hidden) / Math.max(tag, area(mark.bounds));
  }
  return sum;
}

function overlap(one, other) {
  const width = Math.min(one.x + one.width, other.x + other.width) - Math.max(one.x, other.x);
  const height = Math.min(one.y + one.height, other.y + other.height) - Math.max(one.y, other.y);
  return Math.max(0, width) * Math.max(0, height);
}

const area = ([left, top, right, bottom]) => (right - left) * (bottom - top);
