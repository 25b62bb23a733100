// The picture: chosen, dropped, pasted or a sample. It is sent as it is, and shown scaled and as oriented by EXIF.

import { byId, make } from "./dom.js";

const SAMPLES = [
  { name: "scene.png", says: "a red circle, a green triangle, a blue square, and the words CAFE and OPEN" },
  { name: "park.png", says: "a purple square, a yellow circle, a green triangle, and the word PARK" },
  { name: "menu.png", says: "an orange triangle, a blue circle, and the words MENU and FISH" },
];
const LARGEST_ZOOM = 2; // small pictures are enlarged, but not to single pixels,
const SMALLEST_SIDE = 240; // unless a region could not be dragged: pixels of the screen for the longer side

export class Picture {
  /** `{blob, name, url, size}`; `size` is null if the browser cannot show it. */
  current = null;
  #onChange;
  #onScale;

  constructor(onChange, onScale) {
    this.#onChange = onChange;
    this.#onScale = onScale;
    this.image = byId("picture");
    this.#listen();
    this.#showSamples();
    new ResizeObserver(() => this.rescale()).observe(byId("frame"));
    addEventListener("resize", () => this.rescale());
  }

  /** Width and height in pixels as displayed; those that the server reports, if the browser knows none. */
  get size() {
    return this.current?.size ?? this.current?.reported ?? null;
  }

  /** Pixels of the picture per pixel of the screen. */
  get unit() {
    const width = byId("canvas").clientWidth;
    return this.size && width ? this.size[0] / width : 1;
  }

  async useSample(name) {
    const response = await fetch(`static/samples/${name}`);
    if (response.ok) await this.use(await response.blob(), name);
  }

  /** Show a picture that is in memory. */
  async use(blob, name = "picture.png") {
    const url = URL.createObjectURL(blob);
    const size = await loadedSize(this.image, url);
    this.current = { blob, name, url, size };
    this.image.hidden = !size;
    this.image.alt = size ? `The picture ${name}` : "";
    byId("canvas").classList.toggle("blank", !size);
    byId("empty").hidden = true;
    byId("about").textContent = about(this.current);
    for (const button of byId("samples").children) button.setAttribute("aria-pressed", String(button.dataset.name === name));
    this.rescale();
    this.#onChange();
  }

  rescale() {
    const [frame, canvas] = [byId("frame"), byId("canvas")];
    if (!this.size) return;
    const style = getComputedStyle(frame);
    const room = frame.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight);
    const isNarrow = matchMedia("(max-width: 900px)").matches;
    const height = isNarrow ? 0.5 * innerHeight : Math.max(320, innerHeight - 400);
    const zoom = Math.max(LARGEST_ZOOM, SMALLEST_SIDE / Math.max(...this.size));
    const scale = Math.min(room / this.size[0], height / this.size[1], zoom);
    canvas.style.width = `${Math.max(1, Math.round(this.size[0] * scale))}px`;
    canvas.style.aspectRatio = `${this.size[0]} / ${this.size[1]}`;
    this.#onScale();
  }

  #listen() {
    const frame = byId("frame");
    byId("file").addEventListener("change", (event) => this.#useFirst(event.target.files));
    for (const name of ["dragenter", "dragover"]) {
      addEventListener(name, (event) => {
        if (!event.dataTransfer?.types.includes("Files")) return;
        event.preventDefault();
        frame.classList.add("dropping");
      });
    }
    addEventListener("dragleave", (event) => {
      if (!event.relatedTarget) frame.classList.remove("dropping");
    });
    addEventListener("drop", (event) => {
      frame.classList.remove("dropping");
      if (!event.dataTransfer?.files.length) return;
      event.preventDefault();
      this.#useFirst(event.dataTransfer.files);
    });
    addEventListener("paste", (event) => {
      if (event.clipboardData?.files.length) {
        event.preventDefault();
        this.#useFirst(event.clipboardData.files);
      }
    });
  }

  #useFirst(files) {
    if (files.length) this.use(files[0], files[0].name);
    byId("file").value = ""; // so that the same file can be chosen again
  }

  #showSamples() {
    byId("samples").append(...SAMPLES.map(({ name, says }) =>
      make(
        "button",
        { type: "button", "aria-label": `Sample: ${says}`, title: says, "aria-pressed": "false", "data-name": name,
          onclick: () => this.useSample(name) },
        make("img", { src: `static/samples/${name}`, alt: "", width: 56, height: 42 }),
      )));
  }
}

async function loadedSize(image, url) {
  image.src = url;
  try {
    await image.decode();
    return [image.naturalWidth, image.naturalHeight];
  } catch {
    return null;
  }
}

function about({ blob, name, size }) {
  const bytes = blob.size < 1e6 ? `${Math.ceil(blob.size / 1000)} kB` : `${(blob.size / 1e6).toFixed(1)} MB`;
  return size
    ? `${name}, ${size[0]} × ${size[1]}, ${bytes}`
    : `${name}, ${bytes}. This browser cannot show the file; it is sent as it is.`;
}
