"""The same look at a server's health through HTTP, for a probe beside the server.

gRPC's port may ask for certificates that the probe does not have; HTTP's, on the loopback interface, does not.
"""

import http.client
import json
import urllib.error
import urllib.request
from typing import Any

from florence2._health import Health, engine_state


def http_health(url: str, model: str, timeout: float) -> Health:
    """How a server is.

    Args:
        url: `http://host:port` of Triton's HTTP.
        model: the name of the model that is served.
        timeout: seconds for each of three calls.
    """
    live = ready = False
    base = f"{url.rstrip('/')}/v2"
    question = {"inputs": [{"name": "ABOUT", "shape": [1], "datatype": "BYTES", "data": ["engine"]}]}
    try:
        live = _is_ok(f"{base}/health/live", timeout)
        ready = _is_ok(f"{base}/models/{model}/ready", timeout)
        answer = json.loads(_call(f"{base}/models/{model}_health/infer", timeout, question))
        return Health(url, live, ready, engine_state(_element(answer, "STATE")))
    # What urllib raises, time-outs included, is an OSError; bad JSON is a ValueError.
    except (OSError, ValueError, http.client.HTTPException) as error:
        return Health(url, live, ready, "unreachable", _reason(error))


def _is_ok(url: str, timeout: float) -> bool:
    try:
        _call(url, timeout)
    except urllib.error.HTTPError:
        return False
    return True


def _call(url: str, timeout: float, body: Any = None) -> bytes:
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(url, data), timeout=timeout) as response:  # noqa: S310
        return bytes(response.read())


def _element(answer: Any, name: str) -> str:
    """The one element of a tensor."""
    for output in answer["outputs"] if isinstance(answer, dict) and "outputs" in answer else ():
        if output.get("name") == name and len(output.get("data", ())) == 1:
            return str(output["data"][0])
    raise ValueError(f"the response has no {name} tensor with one element")


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"HTTP {error.code}: {error.read().decode(errors='replace')}"
    return str(error)
