"""An engine whose prompts say what goes wrong, to be started by path with FLORENCE2_ENGINE_MODULE.

The answer to the prompt `sleep 0.5` takes half a second longer; any other prompt is an ordinary one. While the file
named by DIRECTED_ENGINE_STAYS_AWAY exists, no engine starts.
"""

import os
import time
from pathlib import Path

from florence2_server.config import EngineConfig
from florence2_server.engine.__main__ import main
from florence2_server.engine.build import BuiltEngine, build
from florence2_server.engine.preparation import Preparation
from florence2_server.v1.engine_pb2 import GenerateRequest

STAYS_AWAY = "DIRECTED_ENGINE_STAYS_AWAY"


class DirectedPreparation:
    """The engine's preparation, after it has done as the prompt says."""

    def __init__(self, preparation: Preparation) -> None:
        self._preparation = preparation
        self.response = preparation.response
        self.stream = preparation.stream
        self.adapters = preparation.adapters

    def prepare(self, message: GenerateRequest):
        for part in message.prompt:
            _obey((part.text or part.markup).split())
        return self._preparation.prepare(message)


def _obey(words: list[str]) -> None:
    if words[:1] == ["sleep"]:
        time.sleep(float(words[1]))


def build_directed(config: EngineConfig) -> BuiltEngine:
    if Path(os.environ.get(STAYS_AWAY, "/nowhere")).exists():
        raise RuntimeError("this engine has to stay away")
    built = build(config)
    return built._replace(preparation=DirectedPreparation(built.preparation))


if __name__ == "__main__":
    main(build_directed)
