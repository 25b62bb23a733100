// The picture with its marks as a PNG file.

import { makeSvg } from "./dom.js";
import { draw } from "./overlay.js";

const USUAL_SIDE = 900; // of a picture on the screen: lines and letters have the same proportions in the file

/** @returns a PNG of the picture's own size. */
export async function markedPicture(image, marks, size) {
  const svg = makeSvg("svg", { width: size[0], height: size[1] });
  draw(svg, marks, size, Math.max(...size) / USUAL_SIDE);
  for (const hidden of svg.querySelectorAll(".crowded")) hidden.remove();
  svg.removeAttribute("style");
  const url = URL.createObjectURL(new Blob([new XMLSerializer().serializeToString(svg)], { type: "image/svg+xml" }));
  try {
    const overlay = new Image();
    overlay.src = url;
    await overlay.decode();
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = size;
    const pen = canvas.getContext("2d");
    if (image) pen.drawImage(image, 0, 0, ...size);
    pen.drawImage(overlay, 0, 0, ...size);
    return await new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
  } finally {
    URL.revokeObjectURL(url);
  }
}
