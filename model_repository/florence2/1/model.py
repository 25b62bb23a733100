"""The Triton model: tensors to engine calls and back. Start reading at `florence2_adapter/dispatcher.py`."""

import json
import logging
import os
import shutil
import sys
import tempfile
import threading
from functools import partial
from pathlib import Path
from typing import Any

import triton_python_backend_utils as pb_utils
from florence2_adapter.config import LogConfig, RequestLimits, SupervisionConfig
from florence2_adapter.dispatcher import Dispatcher
from florence2_adapter.engine_process import EngineProcess, EngineStartError
from florence2_adapter.health import HealthServer
from florence2_adapter.metrics import Metrics
from florence2_adapter.orphan import Guard
from florence2_adapter.request_log import RequestLog
from florence2_adapter.supervisor import EngineSupervisor
from florence2_engine.config import EngineConfig
from florence2_engine.settings import ConfigError, config_of, setting_names, settings_for_model


class TritonPythonModel:
    """What Triton's Python stub calls."""

    def initialize(self, args: dict[str, str]) -> None:
        """Start the engine and wait until it can answer.

        Raises:
            TritonModelException: one line about the setting or the checkpoint that is wrong; the model does not load.
        """
        try:
            settings = _settings(args)
            config, supervision = config_of(EngineConfig, settings), config_of(SupervisionConfig, settings)
            limits, log = config_of(RequestLimits, settings), config_of(LogConfig, settings)
        except ConfigError as error:
            raise pb_utils.TritonModelException(str(error)) from None
        logging.basicConfig(
            level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s", stream=sys.stderr
        )
        # Held during each call into tritonserver, so that there is only one at a time. Version 2.51 crashes (SIGSEGV in
        # Metric::~Metric, in the memory that it shares with this stub) if a metric changes while a response is sent or
        # a cancellation is checked. It did in one of ten runs in which 32 callers disconnected at once.
        turn = threading.Lock()
        metrics = Metrics(config.slots, turn)
        self._sockets = Path(tempfile.mkdtemp(prefix="florence2-engine-"))
        self._supervisor = EngineSupervisor(partial(EngineProcess, config, self._sockets), supervision, metrics)
        self._health = HealthServer(args["model_instance_name"], lambda: self._supervisor.state)
        self._guard = Guard(self._sockets, self._health.folder)
        try:
            self._supervisor.start()
        except EngineStartError as error:
            self._leave_nothing()
            raise pb_utils.TritonModelException(str(error)) from None
        self._dispatcher = Dispatcher(
            self._supervisor, config.slots, limits, metrics, RequestLog(sys.stderr if log.log_requests else None), turn
        )

    def execute(self, requests: list[Any]) -> None:
        """Hand requests to the engine; each is answered by its own response sender, later."""
        self._dispatcher.dispatch(requests)

    def finalize(self) -> None:
        """Stop the engine, then what waits for it."""
        self._supervisor.close()
        self._dispatcher.close()
        self._leave_nothing()

    def _leave_nothing(self) -> None:
        self._health.close()
        shutil.rmtree(self._sockets, ignore_errors=True)
        self._guard.dismiss()


def _settings(args: dict[str, str]) -> dict[str, str]:
    model_config = json.loads(args["model_config"])
    parameters = {name: value["string_value"] for name, value in model_config["parameters"].items()}
    if args["model_instance_kind"] == "GPU" and parameters.get("device") == "auto":
        parameters["device"] = f"cuda:{args['model_instance_device_id']}"
    names = setting_names(EngineConfig, RequestLimits, LogConfig, SupervisionConfig)
    return settings_for_model(parameters, os.environ, Path(args["model_repository"]).resolve(), names)
