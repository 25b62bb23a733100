"""The limits of generation options, as `florence2/v1/inference.proto` states them.

Those that depend on the checkpoint or on what the server can do, such as the longest answer, are the server's
to check.
"""

from math import inf

from florence2 import v1
from florence2.errors import InvalidArgumentError

_RANGES = (
    ("max_new_tokens", 1, inf),
    ("min_new_tokens", 0, inf),
    ("num_beams", 1, 8),
    ("length_penalty", -10, 10),
    ("no_repeat_ngram_size", 0, 1024),
    ("repetition_penalty", 0.1, 10),
)


def check_generation(options: v1.GenerationOptions) -> None:
    """Check the options that are set.

    Raises:
        InvalidArgumentError: an option is out of its range.
    """
    for option, least, most in _RANGES:
        value = getattr(options, option)
        if options.HasField(option) and not least <= value <= most:  # NaN is in no range
            limits = f"at least {least}" if most == inf else f"{least} to {most}"
            raise InvalidArgumentError.of_field(f"generation.{option}", value, limits)
    _check_shortest_is_possible(options)
    if options.early_stopping not in v1.EarlyStopping.values():
        names = ", ".join(v1.EarlyStopping.keys())
        raise InvalidArgumentError.of_field("generation.early_stopping", options.early_stopping, f"one of {names}")


def _check_shortest_is_possible(options: v1.GenerationOptions) -> None:
    if options.HasField("max_new_tokens") and options.min_new_tokens > options.max_new_tokens:
        limit = f"at most max_new_tokens, which is {options.max_new_tokens}"
        raise InvalidArgumentError.of_field("generation.min_new_tokens", options.min_new_tokens, limit)
