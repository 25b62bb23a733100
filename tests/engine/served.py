"""The engine in this process, so that tokens can be compared."""

from pathlib import Path

from florence2.engine.v1.engine_pb2 import GenerateRequest
from florence2.v1 import GenerationOptions, TaskRequest
from florence2_adapter.prompts import prompt_parts
from florence2_engine.__main__ import build
from florence2_engine.config import EngineConfig
from florence2_engine.request import Answer

from tests.reference import Question


class Served:
    """A running engine; a context manager.

    Args:
        folder: the checkpoint.
        **settings: of `EngineConfig`.
    """

    def __init__(self, folder: Path, **settings) -> None:
        self.engine, self._service = build(EngineConfig(**{"checkpoint": str(folder), "device": "cpu", **settings}))
        self.engine.start()

    def run(self, image: bytes, request: TaskRequest) -> Answer:
        message = GenerateRequest(image=image, prompt=prompt_parts(request), generation=request.generation)
        prepared = self._service.prepare(message)
        self.engine.submit(prepared)
        return prepared.future.result(600)

    def answer(self, question: Question) -> Answer:
        return self.run(question.image, question.request)

    def ask(self, image: bytes, task: dict, options: dict) -> Answer:
        return self.run(image, TaskRequest(**task, generation=GenerationOptions(**options)))

    def tokens(self, image: bytes, prompt: str, **options) -> list[int]:
        """The answer to a rendered prompt, decoder start token first."""
        request = TaskRequest(prompt=prompt, generation=GenerationOptions(**options))
        return list(self.run(image, request).hypothesis.token_ids)

    def __enter__(self) -> "Served":
        return self

    def __exit__(self, *error: object) -> None:
        self.engine.close()
