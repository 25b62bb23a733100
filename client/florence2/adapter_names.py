"""Names of adapters, which are the same in requests, in a server's settings and in its metrics."""

import re
from typing import Final

from florence2.errors import InvalidArgumentError

ADAPTER_NAME_RULE: Final = (
    '1 to 64 letters (A-Z, a-z), digits, ".", "_" or "-", of which the first is a letter or a digit'
)
"""What `is_adapter_name` checks, for messages."""

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def is_adapter_name(name: str) -> bool:
    """Whether an adapter can have this name."""
    return _NAME.fullmatch(name) is not None


def check_adapter_name(name: str, field: str = "adapter") -> None:
    """Check that an adapter can have this name.

    Args:
        name: the name.
        field: the path of the field, or the name of the setting, that has it.

    Raises:
        InvalidArgumentError: it cannot. The message names the field, the value and the limit.
    """
    if not is_adapter_name(name):
        raise InvalidArgumentError.of_field(field, name, ADAPTER_NAME_RULE)
