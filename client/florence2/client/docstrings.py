"""Completes the docstrings of the clients' methods, so that `help(Client.detect)` names every keyword and error.

The texts of the options are those of `TaskOptions`, `FilterOptions` and `CallOptions`.
"""

import inspect
from collections.abc import Callable, Iterator
from typing import Any, TypeVar, Unpack

from florence2.options import CallOptions, FilterOptions, RunOptions, TaskOptions

ClientT = TypeVar("ClientT", bound=type)

_ERRORS = """
    TypeError: an argument has the wrong type.
    InvalidArgumentError: the request or the image is invalid. The message names the field, the value and the limit.
    OSError: the image is a path that cannot be read.
    UnavailableError: until the deadline, the server was full, starting, stopping or unreachable. A retry is safe.
    DeadlineExceededError: no answer within `timeout` seconds.
    RequestCancelledError: the client was closed while the request was in flight.
    MessageTooLargeError: the request or the response exceeds a limit of client, server or proxy.
    ModelNotFoundError, AccessDeniedError: the settings of the client do not match those of the server.
    ServerError: any other fault of the server.
    RuntimeError: the client is closed.
""".strip("\n")
# Their results show what was truncated.
_NEVER_TRUNCATED = ("ground_caption", "analyze_regions", "run_tasks", "map")
_TRUNCATED = "    TruncatedAnswerError: the answer was truncated at its length limit; the error holds what is complete."


def document(client: ClientT) -> ClientT:
    """Append options and errors to the docstrings of the methods that take options. A class decorator."""
    for method in _methods(client):
        options = method.__annotations__.get("options")
        if options not in (Unpack[TaskOptions], Unpack[RunOptions], Unpack[CallOptions]):
            continue
        keywords, errors = _keys(CallOptions), _ERRORS
        if options != Unpack[CallOptions]:
            keywords = f"{keywords}\n{_keys(FilterOptions)}"
        if options == Unpack[TaskOptions]:
            keywords = f"{keywords}\n{_keys(TaskOptions)}"
            errors = errors if method.__name__ in _NEVER_TRUNCATED else f"{_TRUNCATED}\n{errors}"
        method.__doc__ = f"{_doc(method)}\n\nOptions:\n{keywords}\n\nRaises:\n{errors}"
    return client


def document_like(original: type) -> Callable[[ClientT], ClientT]:
    """Take over everything but the summary from the docstrings of another class's methods. A class decorator."""

    def document(client: ClientT) -> ClientT:
        for method in _methods(client):
            summary = _doc(method).partition("\n")[0]
            details = _doc(getattr(original, method.__name__)).partition("\n")[2]
            method.__doc__ = f"{summary}\n{details}"
        return client

    return document


def _methods(client: type) -> Iterator[Any]:
    return (member for name, member in vars(client).items() if inspect.isfunction(member) and name[0] != "_")


def _keys(options: type) -> str:
    """The section `Keys` of a `TypedDict`'s docstring."""
    return _doc(options).partition("Keys:\n")[2]


def _doc(documented: object) -> str:
    return inspect.getdoc(documented) or ""  # none under python -OO
