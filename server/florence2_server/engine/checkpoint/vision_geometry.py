"""The number of tokens that the vision tower makes from an image. Imports no torch."""

from typing import Any

from florence2_server.engine.errors import CheckpointError


def count_image_tokens(vision: Any, image_size: tuple[int, int]) -> int:
    """The number of tokens of an image: one for each position of the last stage, and one for their mean.

    Args:
        vision: a `Florence2VisionConfig`.
        image_size: height and width of the vision tower's input, in pixels.

    Raises:
        CheckpointError: the image has no positions, or more than there are embeddings.
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


def check_declared(declared: int, made: int) -> None:
    """Check that the processor's number of image tokens in a prompt is the number that the vision tower makes.

    Raises:
        CheckpointError: they differ, so `generate()` would reject every image.
    """
    if declared != made:
        raise CheckpointError(
            f"image processor: image_seq_length: got {declared}, but the vision tower makes {made} tokens from an "
            "image of this size"
        )
