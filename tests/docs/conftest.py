"""The real server of `tests/server`, and `florence2 web` in front of it."""

from tests.server.conftest import server, start_server
from tests.web.conftest import door_url

__all__ = ["door_url", "server", "start_server"]
