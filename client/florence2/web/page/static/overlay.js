// Draws marks as SVG over the picture, in the picture's pixels. Presentation is in attributes, so that the same
// drawing can be saved with the picture.

import { makeSvg } from "./dom.js";
import { ink } from "./marks.js";
import { TAG_FONT, placeTags } from "./tags.js";

/** Draw marks.
 * @param svg the element; its content is replaced.
 * @param marks those to draw.
 * @param size [width, height] of the picture.
 * @param unit pixels of the picture per pixel of the screen.
 */
export function draw(svg, marks, size, unit) {
  svg.setAttribute("viewBox", `0 0 ${size[0]} ${size[1]}`);
  svg.style.setProperty("--unit", `${unit}px`);
  const drawable = marks.filter((mark) => mark.bounds);
  const tags = placeTags(drawable, size, unit);
  // Large ones first, so that a small one inside a large one can be pointed at.
  const ordered = [...drawable].sort((one, other) => area(other) - area(one));
  const shapes = new Map(ordered.map((mark) => [mark, makeSvg("g", { class: "mark", "data-index": mark.index })]));
  for (const [mark, group] of shapes) group.append(...lines(mark, unit));
  // All tags are above all shapes; a tag belongs to its mark by its index.
  const tagGroups = tags.map((tag) => tagGroup(tag, unit));
  svg.replaceChildren(...shapes.values(), ...tagGroups);
  svg.setAttribute("aria-label", marks.length ? described(marks) : "No marks");
}

/** Show which mark is pointed at, or none. */
export function highlight(svg, index) {
  svg.classList.toggle("some", index !== null);
  for (const group of svg.querySelectorAll(".mark")) group.classList.toggle("on", Number(group.dataset.index) === index);
}

const area = ({ bounds: [left, top, right, bottom] }) => (right - left) * (bottom - top);

function described(marks) {
  const labels = marks.slice(0, 20).map((mark) => mark.label || "a region");
  return `${marks.length} marked: ${labels.join(", ")}${marks.length > 20 ? ", and more" : ""}`;
}

function lines({ box, polygons, isText, color }, unit) {
  const shapes = polygons.map((points) => ["polygon", { points: points.map((point) => point.join(",")).join(" ") }]);
  if (box) {
    const [x0, y0, x1, y1] = box;
    const sides = { x: Math.min(x0, x1), y: Math.min(y0, y1), width: Math.abs(x1 - x0), height: Math.abs(y1 - y0) };
    shapes.push(["rect", { ...sides, rx: 2 * unit }]);
  }
  const fill = isText ? 0.1 : polygons.length ? 0.26 : 0.07;
  const stroke = { fill: "none", "stroke-linejoin": "round" };
  return shapes.flatMap(([tag, geometry]) => [
    makeSvg(tag, { ...geometry, class: "fill", fill: color, "fill-opacity": fill }),
    makeSvg(tag, { ...geometry, ...stroke, stroke: "#fff", "stroke-opacity": 0.85, "stroke-width": 4.5 * unit }),
    makeSvg(tag, { ...geometry, ...stroke, class: "line", stroke: color, "stroke-width": 2.5 * unit }),
  ]);
}

function tagGroup({ mark, x, y, width, height, text, isCrowded }, unit) {
  const place = { x, y, width, height, rx: 4 * unit };
  const written = makeSvg("text", {
    x: x + width / 2, y: y + height * 0.71, fill: ink(mark.color), "font-size": 12.5 * unit, "font-weight": 600,
    "font-family": TAG_FONT, "text-anchor": "middle",
  });
  written.textContent = text;
  const parts = [
    makeSvg("rect", { ...place, fill: mark.color, stroke: "#fff", "stroke-opacity": 0.85, "stroke-width": unit }),
    written,
  ];
  const inner = makeSvg("g", { class: isCrowded ? "crowded" : "tag" }, ...parts);
  return makeSvg("g", { class: "mark", "data-index": mark.index }, inner);
}
