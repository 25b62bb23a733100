// A box on the picture: drag a new one, move it, or pull a corner. The number fields do the same by keyboard.

import { byId, makeSvg } from "./dom.js";

const CORNERS = { nw: [0, 1], ne: [2, 1], sw: [0, 3], se: [2, 3] };

export class RegionBox {
  /** [x_min, y_min, x_max, y_max] in pixels of the picture, or null. */
  value = null;
  #picture;
  #onChange;
  #svg = byId("box");

  constructor(picture, onChange) {
    this.#picture = picture;
    this.#onChange = onChange;
    this.#svg.addEventListener("pointerdown", (event) => this.#start(event));
  }

  /** Let the box be drawn, or hide it. */
  enable(isOn) {
    byId("frame").classList.toggle("drawing", isOn);
    this.#svg.toggleAttribute("hidden", !isOn);
    this.draw();
  }

  set(value) {
    this.value = value;
    this.draw();
  }

  draw() {
    const { size, unit } = this.#picture;
    if (!size) return;
    this.#svg.setAttribute("viewBox", `0 0 ${size[0]} ${size[1]}`);
    if (!this.value || !this.value.every(Number.isFinite)) return this.#svg.replaceChildren();
    const [x0, y0, x1, y1] = ordered(this.value);
    const place = { x: x0, y: y0, width: x1 - x0, height: y1 - y0 };
    const corners = Object.entries(CORNERS).map(([name, [x, y]]) =>
      makeSvg("circle", {
        class: `corner ${name}`, "data-corner": name, cx: [x0, y0, x1, y1][x], cy: [x0, y0, x1, y1][y],
        r: 6 * unit, "stroke-width": 2 * unit,
      }));
    this.#svg.replaceChildren(
      makeSvg("rect", { ...place, class: "area", "stroke-width": 4 * unit }),
      makeSvg("rect", { ...place, class: "dash", "stroke-width": 2 * unit, "stroke-dasharray": `${6 * unit} ${4 * unit}` }),
      ...corners,
    );
  }

  #start(event) {
    if (event.button !== 0 || !this.#picture.size) return;
    event.preventDefault();
    const from = this.#point(event);
    const change = this.#changeOf(event.target, from);
    const move = (moved) => this.#set(change(this.#point(moved)));
    const end = () => {
      this.#svg.removeEventListener("pointermove", move);
      this.#svg.removeEventListener("pointerup", end);
      this.#svg.removeEventListener("pointercancel", end);
    };
    this.#svg.setPointerCapture(event.pointerId);
    this.#svg.addEventListener("pointermove", move);
    this.#svg.addEventListener("pointerup", end);
    this.#svg.addEventListener("pointercancel", end);
  }

  /** How the pointer's place changes the box: by a corner, as a whole, or a new one. */
  #changeOf(target, from) {
    const start = this.value && ordered(this.value);
    if (target.dataset.corner) {
      const [x, y] = CORNERS[target.dataset.corner];
      return (to) => start.with(x, to[0]).with(y, to[1]);
    }
    if (target.classList.contains("area")) {
      const [width, height] = this.#picture.size;
      return (to) => {
        const right = clamp(to[0] - from[0], -start[0], width - start[2]);
        const down = clamp(to[1] - from[1], -start[1], height - start[3]);
        return [start[0] + right, start[1] + down, start[2] + right, start[3] + down];
      };
    }
    return (to) => [...from, ...to];
  }

  #set(value) {
    this.set(ordered(value).map(Math.round));
    this.#onChange(this.value);
  }

  #point(event) {
    const frame = this.#svg.getBoundingClientRect();
    const [width, height] = this.#picture.size;
    return [
      clamp(((event.clientX - frame.left) / frame.width) * width, 0, width),
      clamp(((event.clientY - frame.top) / frame.height) * height, 0, height),
    ];
  }
}

const clamp = (value, least, most) => Math.max(least, Math.min(most, value));
const ordered = ([x0, y0, x1, y1]) => [Math.min(x0, x1), Math.min(y0, y1), Math.max(x0, x1), Math.max(y0, y1)];
