"""A server's health over HTTP, for a probe on the same machine.

The gRPC port may require certificates that the probe does not have; HTTP on the loopback interface does not.
"""

import http.client
import json
import urllib.error
import urllib.request
from typing import Any

from florence2.transports.protocol import Health, engine_state
from florence2.transports.server_info import read_server_info

# urllib raises OSErrors, also for timeouts; malformed JSON is a ValueError.
_ERRORS = (OSError, ValueError, http.client.HTTPException)
# A probe's server is near: a proxy for the rest of the world cannot reach it.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def http_health(url: str, model: str, timeout: float) -> Health:
    """The state of a server.

    Args:
        url: `http://host:port` of the server's port for health, or of Triton's HTTP service.
        model: the model's name.
        timeout: seconds for each request: one to the port for health, four to Triton.

    Raises:
        ServerError: the server reports what it serves in another way than this project's servers.
    """
    base = url.rstrip("/")
    try:
        models = _reported_models(base, timeout)
    except _ERRORS as error:
        return Health(url, False, False, "unreachable", _reason(error))
    if models is None:
        return _triton_health(url, base, model, timeout)
    if model not in models:
        reason = f"the server has no model {model!r}, only {', '.join(map(repr, models))}"
        return Health(url, True, False, "unreachable", reason)
    return _reported_health(url, model, models[model])


def _reported_models(base: str, timeout: float) -> dict[str, Any] | None:
    """The models that a port for health reports; None from Triton, which does not have this path."""
    try:
        report = json.loads(_fetch(f"{base}/", timeout))
    except urllib.error.HTTPError:
        return None
    models = report.get("models") if isinstance(report, dict) else None
    if not isinstance(models, dict):
        raise ValueError("neither Triton nor a port for health responds there")
    return models


def _reported_health(url: str, model: str, report: dict[str, Any]) -> Health:
    served = {field: value for field, value in report.items() if field != "state"}
    info = read_server_info(url, json.dumps({**served, "model": model}))
    # What an engine serves is known once it has loaded its checkpoint for the first time.
    is_loading = not info.engines or any(engine.state == "starting" and not engine.slots for engine in info.engines)
    return Health(url, True, not is_loading, engine_state(report["state"]), info=info)


def _triton_health(url: str, base: str, model: str, timeout: float) -> Health:
    live = ready = False
    body = {"inputs": [{"name": "ABOUT", "shape": [1], "datatype": "BYTES", "data": ["engine"]}]}
    try:
        live = _is_ok(f"{base}/v2/health/live", timeout)
        ready = _is_ok(f"{base}/v2/models/{model}/ready", timeout)
        outputs = _elements(json.loads(_fetch(f"{base}/v2/models/{model}_health/infer", timeout, body)))
    except _ERRORS as error:
        return Health(url, live, ready, "unreachable", _reason(error))
    if "STATE" not in outputs:
        return Health(url, live, ready, "unreachable", "the response has no STATE tensor with one element")
    info = read_server_info(url, outputs["INFO"]) if "INFO" in outputs else None  # older servers have none
    return Health(url, live, ready, engine_state(outputs["STATE"]), info=info)


def _is_ok(url: str, timeout: float) -> bool:
    try:
        _fetch(url, timeout)
    except urllib.error.HTTPError:
        return False
    return True


def _fetch(url: str, timeout: float, body: Any = None) -> bytes:
    data = None if body is None else json.dumps(body).encode()
    with _OPENER.open(urllib.request.Request(url, data), timeout=timeout) as response:  # noqa: S310
        return bytes(response.read())


def _elements(response: Any) -> dict[str, str]:
    """The only element of each tensor that has one, by name."""
    outputs = response.get("outputs", ()) if isinstance(response, dict) else ()
    return {output["name"]: str(output["data"][0]) for output in outputs if len(output.get("data", ())) == 1}


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"HTTP {error.code}: {error.read().decode(errors='replace')}"
    return str(error)
