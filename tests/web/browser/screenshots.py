"""Takes the pictures of docs/playground.md, with the demo checkpoint in the web process: `make web-screenshots`.

Look at them before you commit them.
"""

import io
from dataclasses import dataclass
from typing import Any

import PIL.Image
from playwright.sync_api import sync_playwright

from tests.conftest import ROOT
from tests.web.browser.conftest import CHROMIUM
from tests.web.browser.playground import Playground, TaskRow
from tests.web.conftest import web_process

FOLDER = ROOT / "docs"
CHECKPOINT = "model_repository/florence2/demo_checkpoint"
DESKTOP = {"viewport": {"width": 1280, "height": 860}}
PHONE = {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 2}
MOST_BYTES = 150_000


@dataclass(frozen=True)
class Screenshot:
    """A picture: the tasks that are run, the last of them in view."""

    name: str
    rows: tuple[TaskRow, ...]
    context: dict[str, Any]
    sample: str = "scene.png"


SCREENSHOTS = (
    Screenshot("playground.webp", (TaskRow("Read", "read-text-regions"), TaskRow("Find", "detect")), DESKTOP),
    Screenshot(
        "playground-dark.webp",
        (TaskRow("Cascades", "ground-caption"),),
        {**DESKTOP, "color_scheme": "dark"},
        "park.png",
    ),
    Screenshot("playground-phone.webp", (TaskRow("Segment", "segment", "blue circle"),), PHONE, "menu.png"),
)


def main() -> None:
    """Write all pictures."""
    with sync_playwright() as playwright, web_process("--checkpoint", CHECKPOINT) as (url, _):
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for screenshot in SCREENSHOTS:
            playground = Playground(browser, f"{url}/", **screenshot.context)
            playground.wait_until_loaded()
            playground.page.click(f"[data-name='{screenshot.sample}']")
            for row in screenshot.rows:
                playground.choose(row)
                playground.run()
            playground.page.mouse.move(0, 0)
            playground.page.mouse.wheel(0, -10_000)
            _save(playground.page.screenshot(), screenshot.name)
            playground.close()
        browser.close()


def _save(png: bytes, name: str) -> None:
    file = FOLDER / name
    PIL.Image.open(io.BytesIO(png)).convert("RGB").save(file, "WEBP", quality=85, method=6)
    assert file.stat().st_size <= MOST_BYTES, f"{name} has {file.stat().st_size} bytes"


if __name__ == "__main__":
    main()
