"""The keywords of a client's methods, and their way into a request."""

import uuid
from typing import Final, Literal, TypedDict

from florence2 import v1
from florence2._arguments import check_integer, check_seconds, check_text
from florence2.errors import InvalidArgumentError, wrong_type


class CallOptions(TypedDict, total=False):
    """Keywords of every method: how the call is made. None of them changes the answer.

    Keys:
        timeout: seconds for the whole call, above 0: reading and encoding the image, the wait in the server's
            queue, the answer. What is left of it when the request is sent also goes to Triton's queue, so
            that nobody works on a request that has become stale. None waits without limit; left out, the
            client's own applies.
        priority: 1 (served first) to 3 (served last) among the requests that wait in the server's queue. 0 or
            None, like leaving it out, is the model's default level.
        request_id: names the call in the server's log. Left out, a random one does.
    """

    timeout: float | None
    priority: int | None
    request_id: str | None


class TaskOptions(CallOptions, total=False):
    """Keywords of the task methods: those of `CallOptions`, and how the answer is searched.

    What is left out, or None, is as the checkpoint's generation config says; see `GenerationOptions` in
    `florence2/v1/inference.proto`.

    Keys:
        max_new_tokens: the most tokens the answer may have, at least 1. An answer that is cut there raises
            `TruncatedAnswerError`.
        min_new_tokens: the answer cannot end before this many tokens, 0 to `max_new_tokens`.
        num_beams: number of beams, 1 to 8; 1 is greedy search. Official checkpoints say 3.
        length_penalty: exponent of the length by which a beam's summed log-probability is divided, -10 to 10:
            above 0 favours long answers, below 0 short ones. Greedy search has no use for it.
        early_stopping: when beam search stops, in the terms of Hugging Face's `generate`: True as soon as
            there are `num_beams` whole answers, False when it is unlikely that a better one comes, `"never"`
            only when none can. Greedy search has no use for it.
        no_repeat_ngram_size: no sequence of this many tokens occurs twice in an answer, 0 to 1024; 0 switches
            the rule off.
        repetition_penalty: 0.1 to 10. The scores of tokens that the answer already contains are divided by it,
            or multiplied by it if they are below 0: above 1 discourages repetition, below 1 encourages it,
            1 switches the rule off. The end token counts as contained from the start, as in `generate`.
        suppress_bos: True keeps the token `<s>` out of the answer but where the checkpoint forces it.
    """

    max_new_tokens: int | None
    min_new_tokens: int | None
    num_beams: int | None
    length_penalty: float | None
    early_stopping: bool | Literal["never"] | None
    no_repeat_ngram_size: int | None
    repetition_penalty: float | None
    suppress_bos: bool | None


_LOWEST_PRIORITY: Final = 3

_EARLY_STOPPING: dict[object, v1.EarlyStopping] = {
    True: v1.EarlyStopping.EARLY_STOPPING_FIRST,
    False: v1.EarlyStopping.EARLY_STOPPING_HEURISTIC,
    "never": v1.EarlyStopping.EARLY_STOPPING_NEVER,
}


def set_generation(request: v1.TaskRequest, options: TaskOptions) -> None:
    """Write the generation options that are given into a request.

    Ranges are not checked here: `florence2.prompts.check_request` does that.

    Raises:
        TypeError: an unknown keyword, or a value of the wrong type.
        InvalidArgumentError: a value that does not fit its type.
    """
    refuse_unknown(options, TaskOptions.__optional_keys__)
    # Sorted: in a set's own order it would be chance which of two wrong options is named.
    for name in sorted(TaskOptions.__optional_keys__ - CallOptions.__optional_keys__):
        value = options.get(name)
        if value is None:
            continue
        if name == "early_stopping":
            value = _early_stopping(value)
        _set_option(request.generation, name, value)


def _set_option(generation: v1.GenerationOptions, name: str, value: object) -> None:
    is_switch = isinstance(getattr(generation, name), bool)
    # Protobuf would accept True as 1, and 5 as True.
    if is_switch != isinstance(value, bool):
        raise wrong_type(name, value, "a bool" if is_switch else "a number")
    try:
        setattr(generation, name, value)
    except TypeError as error:
        is_real = isinstance(getattr(generation, name), float)
        raise wrong_type(name, value, "a number" if is_real else "an int") from error
    except ValueError as error:
        raise InvalidArgumentError.of_field(f"generation.{name}", value, "a number that fits into 32 bits") from error


def _early_stopping(value: object) -> v1.EarlyStopping:
    accepted = 'True, False or "never"'
    if not isinstance(value, bool | str):
        raise wrong_type("early_stopping", value, accepted)
    if value not in _EARLY_STOPPING:
        raise InvalidArgumentError.of_field("generation.early_stopping", value, accepted)
    return _EARLY_STOPPING[value]


def check_timeout(timeout: float | None) -> float | None:
    """The timeout in seconds, None for no limit.

    Raises:
        TypeError: it is not a number.
        InvalidArgumentError: it is not finite or not above 0.
    """
    return None if timeout is None else check_seconds("timeout", timeout)


def check_priority(priority: int | None) -> int:
    """The priority level, 0 for the model's default.

    Triton silently takes the default for a level that it does not have, so a wrong one is found here or
    never.

    Raises:
        TypeError: it is not an int.
        InvalidArgumentError: it is not 0 to 3.
    """
    if priority is None:
        return 0
    level = check_integer("priority", priority)
    if level not in range(_LOWEST_PRIORITY + 1):
        limits = f"1 (first) to {_LOWEST_PRIORITY} (last), or 0 for the model's default"
        raise InvalidArgumentError.of_field("priority", priority, limits)
    return level


def check_request_id(request_id: str | None) -> str:
    """The caller's own name for a call, else a random one.

    Raises:
        TypeError: it is not a str.
        InvalidArgumentError: it cannot be encoded as UTF-8.
    """
    return uuid.uuid4().hex if request_id is None else check_text("request_id", request_id)


def refuse_unknown(options: CallOptions, known: frozenset[str]) -> None:
    """Raise the TypeError of a wrong keyword, which ** would hide.

    A keyword that is dropped in silence would leave its author with an answer to another question.
    """
    for name in options:
        if name not in known:
            raise TypeError(f"unexpected keyword argument {name!r}, expected one of {', '.join(sorted(known))}")
