"""How many tokens the vision tower makes of an image, and whether prompts fit beside them. Imports no torch."""

from typing import Any

from florence2_engine.errors import CheckpointError

# Room for the start and end token and the shortest official prompt, "What does the image describe?".
_SHORTEST_PROMPT = 8


def count_image_tokens(vision: Any, image_size: tuple[int, int]) -> int:
    """The tokens of an image: one for each position of the last stage, and their mean.

    Args:
        vision: a `Florence2VisionConfig`.
        image_size: height and width in pixels of what the vision tower reads.

    Raises:
        CheckpointError: the image has more positions than there are embeddings for.
    """
    sides = list(image_size)
    for kernel, stride, padding in zip(vision.patch_size, vision.patch_stride, vision.patch_padding, strict=True):
        sides = [(side + 2 * padding - kernel) // stride + 1 for side in sides]
    if not 1 <= min(sides) <= max(sides) <= vision.max_position_embeddings:
        raise CheckpointError(
            f"image processor: size: {image_size[0]} x {image_size[1]} pixels make {sides[0]} x {sides[1]} positions, "
            f"expected 1 to {vision.max_position_embeddings} on each side"
        )
    return sides[0] * sides[1] + 1


def check_positions(image_tokens: int, declared_image_tokens: int | None, positions: int) -> None:
    """Check that an image and a prompt fit the text encoder.

    Args:
        image_tokens: that the vision tower makes of an image.
        declared_image_tokens: that the processor puts into a prompt; None if it puts none.
        positions: of the text encoder.

    Raises:
        CheckpointError: they do not.
    """
    if declared_image_tokens not in (None, image_tokens):
        raise CheckpointError(
            f"image processor: image_seq_length: got {declared_image_tokens}, but the vision tower makes "
            f"{image_tokens} tokens of an image of this size"
        )
    if image_tokens + _SHORTEST_PROMPT > positions:
        raise CheckpointError(
            f"an image takes {image_tokens} of {positions} positions, which leaves no room for a prompt; "
            "the image processor's size or the positions are wrong"
        )
