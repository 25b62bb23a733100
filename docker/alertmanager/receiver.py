"""Prints the notifications that Alertmanager sends, and serves the latest ones as a page: `receiver.py HOST PORT`.

Standard library only: compose.yaml runs it in Python's own image.
"""

import json
import sys
from collections import deque
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_KEPT = 200


class Receiver(ThreadingHTTPServer):
    """A webhook of Alertmanager. A GET returns the latest lines, newest first."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__((host, port), _Handler)
        self.latest: deque[str] = deque(maxlen=_KEPT)


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        notification = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        for line in lines(notification):
            print(line, flush=True)  # noqa: T201 - what this program is for
            self.server.latest.appendleft(line)
        self._answer("")

    def do_GET(self) -> None:
        self._answer("\n".join(self.server.latest) or "no notifications yet")

    def _answer(self, text: str) -> None:
        body = f"{text}\n".encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Log no HTTP requests: the log is for notifications."""


def lines(notification: dict[str, Any]) -> Iterator[str]:
    """Yield one line for each alert of a notification: time, status, severity, name, labels, summary, runbook."""
    for alert in notification["alerts"]:
        labels = dict(alert["labels"])
        status, severity, name = alert["status"], labels.pop("severity", "none"), labels.pop("alertname")
        time = alert["endsAt"] if status == "resolved" else alert["startsAt"]
        where = " ".join(f"{label}={value}" for label, value in sorted(labels.items()))
        summary, runbook = (alert["annotations"].get(each, "") for each in ("summary", "runbook_url"))
        yield f"{time} {status.upper()} {severity} {name} [{where}] {summary} | {runbook}"


if __name__ == "__main__":
    Receiver(sys.argv[1], int(sys.argv[2])).serve_forever()
