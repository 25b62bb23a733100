"""Draws the pictures of the README and the guide, with the demo checkpoint: `make pictures`.

They show the answers of an engine in this process, so run it after a change of the drawing, the checkpoint or the
scores; `tests/examples/test_pictures.py` fails if they are out of date. Each file also has its labels and scores as
text, under the keyword `Description`.
"""

from dataclasses import dataclass
from pathlib import Path

import florence2
import PIL.Image
from florence2_server.in_process import InProcess
from PIL.PngImagePlugin import PngInfo

FOLDER = Path(__file__).parent
IMAGE = FOLDER / "scene.png"


@dataclass(frozen=True)
class Picture:
    """A picture, and the labels and scores that are drawn on it."""

    pixels: PIL.Image.Image
    description: str

    def save(self, file: Path) -> None:
        """Write a PNG file."""
        text = PngInfo()
        text.add_itxt("Description", self.description)
        self.pixels.save(file, optimize=True, pnginfo=text)


def pictures(client: florence2.Client) -> dict[str, Picture]:
    """The pictures by the names of their files."""
    return {
        "detected.png": picture(client.detect(IMAGE)),
        "outlined.png": picture(client.segment(IMAGE, "red circle")),
        "proposed.png": picture(client.propose_regions(IMAGE)),
        "read.png": picture(client.read_text_regions(IMAGE)),
    }


def picture(result: florence2.Detections | florence2.Segmentation | florence2.TextRegions) -> Picture:
    """The result, drawn on the scene."""
    lines = [item.label if item.score is None else f"{item.label} {item.score:.2f}" for item in result]
    return Picture(florence2.draw(IMAGE, result), "\n".join(lines))


def main() -> None:
    """Write the files beside this one."""
    with florence2.Client(transport=InProcess()) as client:
        for name, each in pictures(client).items():
            each.save(FOLDER / name)


if __name__ == "__main__":
    main()
