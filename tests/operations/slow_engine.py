"""An engine process that waits for a file before it loads its checkpoint, for FLORENCE2_ENGINE_MODULE."""

import os
import time
from pathlib import Path

from florence2_server.config import EngineConfig
from florence2_server.engine.__main__ import main
from florence2_server.engine.build import BuiltEngine, build

GO = "SLOW_ENGINE_GO"  # the environment variable with the path of the file


def build_later(config: EngineConfig) -> BuiltEngine:
    while not Path(os.environ[GO]).exists():
        time.sleep(0.05)
    return build(config)


if __name__ == "__main__":
    main(build_later)
