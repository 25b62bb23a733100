"""How long prompts and answers can be, and what sets these limits. Imports no torch."""

from dataclasses import dataclass

from florence2_engine.errors import CheckpointError

_SHORTEST_PROMPT = 3  # start token, end token, and one in between


@dataclass(frozen=True)
class Limit:
    """A maximum and its cause: the setting that could be raised, or the checkpoint."""

    value: int
    cause: str

    def __str__(self) -> str:
        """The limit as it appears in error messages."""
        return f"{self.value} ({self.cause})"


def positions_limit(setting: int, checkpoint: int) -> Limit:
    """The positions that the key-value cache holds: the setting, but no more than the model has."""
    if setting < checkpoint:
        return Limit(setting, "FLORENCE2_POSITIONS")
    return Limit(checkpoint, "the checkpoint's positions")


def answer_limit(setting: int, positions: Limit) -> Limit:
    """The most tokens of an answer; if the setting is 0, the positions are the limit."""
    if 0 < setting < positions.value:
        return Limit(setting, "FLORENCE2_MAX_NEW_TOKENS")
    return positions


def prompt_limit(positions: Limit, image_tokens: int) -> Limit:
    """The most tokens of a prompt, which shares the encoder's positions with the image.

    Raises:
        CheckpointError: no prompt fits next to an image.
    """
    least = image_tokens + _SHORTEST_PROMPT
    if positions.value < least:
        raise CheckpointError(
            f"{positions.cause}: got {positions.value}, expected at least {least}, {image_tokens} of them for an image"
        )
    return Limit(positions.value - image_tokens, positions.cause)
