"""An engine process that one prompt crashes, to be started by path with FLORENCE2_ENGINE_MODULE."""

import os

from florence2_server.config import EngineConfig
from florence2_server.engine.__main__ import main
from florence2_server.engine.build import BuiltEngine, build
from florence2_server.engine.preparation import Preparation
from florence2_server.v1.engine_pb2 import GenerateRequest

POISON = "the poison"


class PoisonedPreparation:
    """The engine's preparation, except that it aborts the process on the poison."""

    def __init__(self, preparation: Preparation) -> None:
        self._preparation = preparation
        self.response = preparation.response
        self.stream = preparation.stream
        self.adapters = preparation.adapters

    def prepare(self, message: GenerateRequest):
        if any(POISON in (part.text, part.markup) for part in message.prompt):
            os.abort()
        return self._preparation.prepare(message)


def build_poisoned(config: EngineConfig) -> BuiltEngine:
    built = build(config)
    return built._replace(preparation=PoisonedPreparation(built.preparation))


if __name__ == "__main__":
    main(build_poisoned)
