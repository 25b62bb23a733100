"""The Triton model: tensors to engine calls and back. Start reading at `florence2_adapter/dispatcher.py`."""

import json
import os
from pathlib import Path
from typing import Any

import triton_python_backend_utils as pb_utils
from florence2_adapter.dispatcher import Dispatcher
from florence2_adapter.engine_process import EngineProcess, EngineStartError
from florence2_adapter.metrics import Metrics
from florence2_engine.config import ConfigError, EngineConfig, settings_for_model


class TritonPythonModel:
    """What Triton's Python stub calls."""

    def initialize(self, args: dict[str, str]) -> None:
        """Start the engine and wait until it can answer.

        Raises:
            TritonModelException: one line about the setting or the checkpoint that is wrong; the model does not load.
        """
        try:
            config = _engine_config(args)
            self._engine = EngineProcess.start(config)
        except (ConfigError, EngineStartError) as error:
            raise pb_utils.TritonModelException(str(error)) from None
        self._dispatcher = Dispatcher(self._engine, config.slots, Metrics())

    def execute(self, requests: list[Any]) -> None:
        """Hand requests to the engine; each is answered by its own response sender, later."""
        for request in requests:
            self._dispatcher.dispatch(request)

    def finalize(self) -> None:
        """Stop the engine, then what waits for it."""
        self._engine.stop()
        self._dispatcher.close()


def _engine_config(args: dict[str, str]) -> EngineConfig:
    model_config = json.loads(args["model_config"])
    parameters = {name: value["string_value"] for name, value in model_config["parameters"].items()}
    if args["model_instance_kind"] == "GPU" and parameters.get("device") == "auto":
        parameters["device"] = f"cuda:{args['model_instance_device_id']}"
    return EngineConfig.from_strings(
        settings_for_model(parameters, os.environ, Path(args["model_repository"]).resolve())
    )
