"""The runbook as a dashboard of Grafana, one panel for each alert.

`python -m tests.deploy.runbook_dashboard` writes docker/grafana/runbook.json, which a test compares with
docker/RUNBOOK.md. An alert's `runbook_url` opens one panel, by its id. Its anchor is that of the section on pages that
render the file.
"""

import json
import re
from typing import Any

from tests.deploy.conftest import DOCKER

FILE = DOCKER / "grafana" / "runbook.json"
UID = "florence2-runbook"
# What the chart replaces by the page of an installation.
BASE = f"http://localhost:3000/d/{UID}/{UID}"
_INTRODUCTION_ID = 100
_HINT = "*The end of this page says what the commands' variables are.*"
_WIDTH, _HEIGHT = 24, 16


def sections() -> tuple[str, dict[str, str]]:
    """Return the runbook's introduction, and the text of each alert's section, in order."""
    title, *parts = re.split(r"^## (\w+)\n", (DOCKER / "RUNBOOK.md").read_text(), flags=re.MULTILINE)
    introduction = title.partition("\n")[2].strip()
    return introduction, {alert: text.strip() for alert, text in zip(parts[::2], parts[1::2], strict=True)}


def runbook_url(alert: str) -> str:
    """Return the address of an alert's section."""
    number = list(sections()[1]).index(alert) + 1
    return f"{BASE}?viewPanel={number}#{alert.lower()}"


def dashboard() -> dict[str, Any]:
    """Return Grafana's model of the dashboard."""
    introduction, alerts = sections()
    texts = {"Before the first command": introduction} | {
        alert: f"{_HINT}\n\n{text}\n\n---\n\n## Before the first command\n\n{introduction}"
        for alert, text in alerts.items()
    }
    return {
        "uid": UID,
        "title": "Florence-2 runbook",
        "description": "What each alert means, what to look at, what to do: docker/RUNBOOK.md.",
        "tags": ["florence2", "triton"],
        "editable": False,
        "schemaVersion": 39,
        "version": 1,
        "links": [_link()],
        "panels": [
            _panel(row, row or _INTRODUCTION_ID, title, text) for row, (title, text) in enumerate(texts.items())
        ],
    }


def _panel(row: int, number: int, title: str, text: str) -> dict[str, Any]:
    return {
        "id": number,
        "type": "text",
        "title": title,
        "gridPos": {"h": _HEIGHT, "w": _WIDTH, "x": 0, "y": row * _HEIGHT},
        "options": {"mode": "markdown", "content": text},
    }


def _link() -> dict[str, Any]:
    return {"type": "link", "title": "Florence-2 on Triton", "url": "/d/florence2-triton", "icon": "dashboard"}


def rendered() -> str:
    """Return the dashboard's file."""
    return json.dumps(dashboard(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    FILE.write_text(rendered())
