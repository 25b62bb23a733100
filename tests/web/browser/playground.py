"""The playground in a browser, as its users see it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

MILLISECONDS = 60_000


@dataclass(frozen=True)
class TaskRow:
    """A task with inputs for examples/scene.png."""

    group: str
    name: str
    text: str = ""
    region: tuple[int, ...] = ()

    @property
    def inputs(self) -> dict[str, Any]:
        """The inputs as fields of a JSON body."""
        names = {"ground": "caption", "detect-open-vocabulary": "query", "segment": "expression", "generate": "prompt"}
        if self.region:
            return {"region": list(self.region)}
        return {names[self.name]: self.text} if self.text else {}


class Playground:
    """A visit of the page, which records what must not happen: errors on the console, requests to other origins."""

    def __init__(self, browser: Browser, url: str, **context: Any) -> None:
        self.faults: list[str] = []
        self._url = url
        self._context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **context})
        self._context.set_default_timeout(MILLISECONDS)
        self.page: Page = self._context.new_page()
        self.page.on("console", self._record_message)
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("request", self._record_request)
        self.page.goto(url)

    def _record_message(self, message: Any) -> None:
        # The browser reports each response with an error status; the page shows those itself.
        if message.type in ("error", "warning") and "the server responded with a status of" not in message.text:
            self.faults.append(message.text)

    def _record_request(self, request: Any) -> None:
        if not request.url.startswith((self._url, "blob:", "data:")):
            self.faults.append(f"requested {request.url}")

    def close(self) -> None:
        """End the visit."""
        self._context.close()

    def wait_until_loaded(self) -> None:
        """Wait for the tasks and the sample."""
        self.page.locator("#run:enabled").wait_for()

    def upload(self, name: str, media_type: str, data: bytes) -> None:
        """Choose a file, and wait until the page shows it."""
        self.page.set_input_files("#file", {"name": name, "mimeType": media_type, "buffer": data})
        self.page.locator("#about", has_text=name).wait_for()

    def choose(self, row: TaskRow) -> None:
        """Choose a task and fill in its inputs."""
        self.page.locator("#groups label", has_text=row.group).click()
        self.page.locator(f"#tasks label:has([value={row.name}])").click()
        if row.text:
            self.page.locator("#inputs input").first.fill(row.text)
        for side, value in enumerate(row.region):
            self.page.locator(f"[data-side='{side}']").fill(str(value))

    def run(self) -> dict[str, Any]:
        """Run the task, and return the answer that the page shows."""
        self.page.click("#run")
        self.page.locator("#save-json:enabled").wait_for()
        return self.answer()

    def answer(self) -> dict[str, Any]:
        """The answer under the tab JSON."""
        answer: dict[str, Any] = json.loads(self.page.locator("#json").text_content() or "")
        return answer

    def list_items(self) -> Locator:
        """The items beside the picture."""
        return self.page.locator("#items > li")

    def boxes(self) -> list[list[float]]:
        """The boxes that are drawn on the picture, by item: x_min, y_min, x_max, y_max in its pixels."""
        return self._drawn(
            "rect", "(each) => ['x', 'y', 'width', 'height'].map((side) => Number(each.getAttribute(side)))"
        )

    def polygons(self) -> list[list[float]]:
        """The polygons and quads that are drawn on the picture, by item, each as x1, y1, x2, y2, ... in its pixels."""
        return self._drawn("polygon", "(each) => each.getAttribute('points').split(/[ ,]/).map(Number)")

    def _drawn(self, tag: str, values: str) -> list[list[float]]:
        lines = self.page.locator(f"#marks {tag}.line").all()
        found = sorted(
            (int(line.locator("..").get_attribute("data-index") or ""), order, line.evaluate(values))
            for order, line in enumerate(lines)
        )
        if tag == "rect":
            return [[x, y, x + width, y + height] for _, _, (x, y, width, height) in found]
        return [points for _, _, points in found]

    def scale(self) -> tuple[float, float]:
        """Pixels of the screen per pixel of the picture, and per pixel of the marks; equal if both cover each other."""
        image, marks = self.page.locator("#picture").bounding_box(), self.page.locator("#marks").bounding_box()
        assert image is not None
        assert marks is not None
        assert [image["x"], image["y"]] == [marks["x"], marks["y"]]
        width = self.page.locator("#picture").evaluate("(image) => image.naturalWidth")
        drawn = self.page.locator("#marks").evaluate("(svg) => svg.viewBox.baseVal.width")
        return image["width"] / width, marks["width"] / drawn
