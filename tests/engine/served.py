"""An engine in the test's own process, so that tokens can be compared."""

import os
from pathlib import Path

from florence2.v1 import GenerationOptions, TaskRequest
from florence2_server.engine.completion import Completion
from florence2_server.in_process import InProcess

from tests.reference import Case


class Served(InProcess):
    """The in-process transport with shortcuts to token ids; a context manager.

    Args:
        folder: the checkpoint.
        **settings: settings of `EngineConfig`.
    """

    def __init__(self, folder: Path | str, **settings) -> None:
        super().__init__(os.fspath(folder), **{"device": "cpu", **settings})

    def run(self, image: bytes, request: TaskRequest) -> Completion:
        return self.submit(image, request).future.result(600)

    def complete(self, case: Case) -> Completion:
        return self.run(case.image, case.request)

    def run_task(self, image: bytes, task: dict, options: dict) -> Completion:
        return self.run(image, TaskRequest(**task, generation=GenerationOptions(**options)))

    def tokens(self, image: bytes, prompt: str, adapter: str = "", **options) -> list[int]:
        """The completion of a rendered prompt, beginning with the decoder start token."""
        request = TaskRequest(prompt=prompt, adapter=adapter, generation=GenerationOptions(**options))
        return list(self.run(image, request).token_ids)

    def __enter__(self) -> "Served":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
