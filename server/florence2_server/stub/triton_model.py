"""A served model, by default `florence2`: reads its settings, runs the engine, and hands requests to the dispatcher."""

import json
import logging
import os
import shutil
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from florence2_server import __version__
from florence2_server.config import (
    AdapterConfig,
    AdmissionConfig,
    EngineConfig,
    LogConfig,
    ObjectiveConfig,
    RequestLimits,
    SupervisionConfig,
)
from florence2_server.environment import CONFIGS, check_environment
from florence2_server.log_format import set_up_logging
from florence2_server.settings import ConfigError, config_of, setting_names, settings_for_model
from florence2_server.stub.adapter_metrics import AdapterMetrics
from florence2_server.stub.adapter_service import AdapterServer
from florence2_server.stub.adapter_sources import AdapterSources, AdapterWatcher
from florence2_server.stub.admission_metrics import AdmissionMetrics
from florence2_server.stub.dispatcher import Dispatcher
from florence2_server.stub.engine_metrics import EngineMetrics
from florence2_server.stub.engine_name import engine_name
from florence2_server.stub.health import StateServer, describe
from florence2_server.stub.metrics import RequestMetrics
from florence2_server.stub.request_log import RequestLog
from florence2_server.stub.sockets import STATE, FolderError, create_folder, socket_path
from florence2_server.stub.streaming_service import StreamingServer
from florence2_server.stub.sweeper import Sweeper
from florence2_server.stub.triton import Triton, load_errors
from florence2_server.supervision.engine_adapters import EngineAdapters
from florence2_server.supervision.engine_process import EngineProcess, EngineStartError
from florence2_server.supervision.supervisor import EngineSupervisor
from florence2_server.supervision.watchdog import Watchdog

_logger = logging.getLogger(__name__)

_PLAN_THREADS = 2


class TritonPythonModel:
    """The interface of Triton's Python backend."""

    def initialize(self, args: dict[str, str]) -> None:
        """Start the engine and wait until it is ready.

        Raises:
            TritonModelException: a setting or the checkpoint is invalid, which the message names in one line.
        """
        set_up_logging()
        with load_errors(ConfigError, EngineStartError, FolderError):
            self._initialize(args)

    def execute(self, requests: list[Any]) -> None:
        """Take requests; each is answered later, by its own response sender, or refused at once."""
        self._dispatcher.dispatch([self._triton.request(request) for request in requests])

    def finalize(self) -> None:
        """Stop the engine, then what depends on it."""
        self._supervisor.close()
        self._adapter_server.close()
        self._watcher.close()
        self._plans.shutdown()
        self._streaming.close()
        self._sweeper.close()
        self._clean_up()

    def _initialize(self, args: dict[str, str]) -> None:
        check_environment(os.environ)
        settings = _settings(args)
        config, supervision = config_of(EngineConfig, settings), config_of(SupervisionConfig, settings)
        limits, admission = config_of(RequestLimits, settings), config_of(AdmissionConfig, settings)
        log, objectives = config_of(LogConfig, settings), config_of(ObjectiveConfig, settings)
        sources = AdapterSources(config_of(AdapterConfig, settings))
        model, engine = args["model_name"], engine_name(args)
        socket_path(model, engine, STATE)  # raises if its path is too long, before there is anything to clean up
        self._triton = Triton({"model": model, "engine": engine})
        # Before the engine starts, so that its metrics are there while it loads.
        adapter_metrics = AdapterMetrics(self._triton, config.max_adapters)
        metrics = RequestMetrics(self._triton, objectives, adapter_metrics)
        admission_metrics = AdmissionMetrics(self._triton, admission, config.slots, metrics)
        self._sockets = Path(tempfile.mkdtemp(prefix="florence2-engine-"))
        launch = partial(EngineProcess, config, self._sockets)
        adapters = EngineAdapters(sources.wanted, supervision.start_seconds, adapter_metrics.show_served)
        engine_metrics = EngineMetrics(self._triton, __version__, adapter_metrics)
        self._supervisor = EngineSupervisor(launch, supervision, engine_metrics, adapters)
        self._start_engine(model, engine)
        request_log = RequestLog(sys.stderr if log.log_requests else None)
        self._plans = ThreadPoolExecutor(_PLAN_THREADS, thread_name_prefix="plans")
        self._dispatcher = Dispatcher(
            self._supervisor, admission, config.slots, limits, metrics, admission_metrics, request_log, self._plans
        )
        self._sweeper = Sweeper(self._dispatcher)
        self._streaming = StreamingServer(model, engine, self._dispatcher)
        self._supervisor.watch_plans(self._dispatcher.plans)
        adapter_metrics.watch_queue(self._dispatcher.waiting_adapters)
        self._watcher = AdapterWatcher(adapters)
        self._adapter_server = AdapterServer(model, engine, self._supervisor, sources, adapters)

    def _start_engine(self, model: str, engine: str) -> None:
        self._state = StateServer(model, engine, self._supervisor)
        self._watchdog = Watchdog(own=self._sockets, shared=create_folder())
        try:
            self._supervisor.start()
        except EngineStartError:
            self._clean_up()
            raise
        _logger.info("%s: engine %s: %s", model, engine, describe(self._supervisor.info, __version__))

    def _clean_up(self) -> None:
        self._state.close()
        shutil.rmtree(self._sockets, ignore_errors=True)
        self._watchdog.stop()


def _settings(args: dict[str, str]) -> dict[str, str]:
    model_config = json.loads(args["model_config"])
    parameters = {name: value["string_value"] for name, value in model_config["parameters"].items()}
    names = setting_names(*CONFIGS)
    settings = settings_for_model(parameters, os.environ, Path(args["model_repository"]).resolve(), names)
    if args["model_instance_kind"] == "GPU" and settings.get("device", EngineConfig.device) == "auto":
        settings["device"] = f"cuda:{args['model_instance_device_id']}"
    return settings
