"""The Triton model for health: reports the state of the engines behind a served model, and what they serve."""

import os
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.json_format import MessageToJson

from florence2_server.log_format import set_up_logging
from florence2_server.served_model import HEALTH_SUFFIX
from florence2_server.settings import ConfigError
from florence2_server.stub.health import server_info, state_of
from florence2_server.stub.health_metrics import StubMetrics
from florence2_server.stub.health_ports import HealthConfig, HealthPorts, PortError, served_models
from florence2_server.stub.sockets import FolderError, create_folder
from florence2_server.stub.triton import Triton, load_errors
from florence2_server.supervision.watchdog import Watchdog


class TritonPythonModel:
    """The interface of Triton's Python backend."""

    def initialize(self, args: dict[str, str]) -> None:
        """Observe the stubs, and listen on the ports for health if they are set; there is nothing to load.

        Raises:
            TritonModelException: a port is invalid or in use, which the message says in one line.
        """
        set_up_logging()
        with load_errors(ConfigError, FolderError, PortError):
            self._model = args["model_name"].removesuffix(HEALTH_SUFFIX)
            self._triton = Triton({})
            models, config = served_models(Path(args["model_repository"])), HealthConfig.of_environment(os.environ)
            self._ports = HealthPorts(models, config, StubMetrics(self._triton).show)
            self._watchdog = Watchdog(shared=create_folder())

    def execute(self, requests: list[Any]) -> None:
        """Answer each request with the current state."""
        info = server_info(self._model)
        text = MessageToJson(info, always_print_fields_with_no_presence=True, indent=None)
        for request in requests:  # not by returning responses, because a metric must not change at the same time
            self._triton.request(request).reply(STATE=_element(state_of(info)), INFO=_element(text))

    def finalize(self) -> None:
        """Stop listening."""
        self._ports.close()
        self._watchdog.stop()


def _element(text: str) -> Any:
    return np.array([text.encode()], dtype=np.object_)
