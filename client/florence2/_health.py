"""How a server is, looked at from outside through Triton and its stub to the engine."""

from dataclasses import dataclass
from typing import Literal, get_args

EngineState = Literal["running", "starting", "failed", "unreachable"]


@dataclass(frozen=True)
class Health:
    """How one server is.

    Triton's own endpoints go on saying that all is well when the process behind a model is dead; `engine` does not.
    """

    url: str
    """The server's."""
    server_is_live: bool
    """Whether Triton answers."""
    model_is_ready: bool
    """Whether Triton says that the model is loaded."""
    engine: EngineState
    """`running`; `starting`: it was lost, and callers wait for the next one; `failed`: it cannot start or dies of all
    that it is asked, and callers are refused; `unreachable`: nobody could say."""
    reason: str = ""
    """Why nobody could say."""

    @property
    def is_alive(self) -> bool:
        """False where only a new container or process helps: what a liveness probe asks."""
        return self.server_is_live and self.engine in ("running", "starting")

    @property
    def is_ready(self) -> bool:
        """Whether an answer can be had now: what a readiness probe asks."""
        return self.server_is_live and self.model_is_ready and self.engine == "running"


def engine_state(word: str) -> EngineState:
    """The state that a server names; a word of a newer server is none that could be relied on."""
    return next((state for state in get_args(EngineState) if state == word), "unreachable")
