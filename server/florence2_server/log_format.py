"""The format of log lines: that of tritonserver with `--log-format=ISO8601`, such as

2026-01-31T23:59:59Z I 4711 florence2_server.engine] the checkpoint is loaded
"""

import logging
import sys
import time

_FORMAT = "%(asctime)s %(levelname).1s %(process)d %(name)s] %(message)s"
_TIME_FORMAT = "%Y-%m-%dT%H:%M:%SZ"


def set_up_logging() -> None:
    """Log to standard error, from INFO on, in the format of tritonserver's lines."""
    formatter = logging.Formatter(_FORMAT, _TIME_FORMAT)
    formatter.converter = time.gmtime
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    logging.basicConfig(level=logging.INFO, handlers=[handler])
