"""The maximum lengths of prompts and completions, with their causes. Imports no torch."""

from florence2.options import Limit

from florence2_server.engine.errors import CheckpointError

_SHORTEST_PROMPT = 3  # start token, end token and one in between


def positions_limit(setting: int, checkpoint: int) -> Limit:
    """The number of positions in the key-value cache: the setting, but at most the model's."""
    if setting < checkpoint:
        return Limit(setting, "FLORENCE2_POSITIONS")
    return Limit(checkpoint, "the checkpoint's positions")


def completion_limit(setting: int, positions: Limit) -> Limit:
    """The maximum number of tokens in a completion; the positions if the setting is 0."""
    if 0 < setting < positions.value:
        return Limit(setting, "FLORENCE2_MAX_NEW_TOKENS")
    return positions


def prompt_limit(positions: Limit, image_tokens: int) -> Limit:
    """The maximum number of tokens in a prompt, which shares the encoder's positions with the image.

    Raises:
        CheckpointError: the positions do not suffice for an image and a prompt.
    """
    least = image_tokens + _SHORTEST_PROMPT
    if positions.value < least:
        raise CheckpointError(
            f"{positions.cause}: got {positions.value}, expected at least {least}, {image_tokens} of them for an image"
        )
    return Limit(positions.value - image_tokens, positions.cause)
