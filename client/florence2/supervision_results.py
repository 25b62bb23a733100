"""Conversion of results to `supervision.Detections`, for the extra `[supervision]`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import supervision


def supervision_detections(
    boxes: npt.NDArray[np.float32],
    labels: Sequence[str],
    scores: npt.NDArray[np.float32] | None,
    masks: npt.NDArray[np.bool_] | None = None,
    **data: npt.NDArray[Any],
) -> "supervision.Detections":
    """Objects as `supervision.Detections`.

    Args:
        boxes: shape (N, 4): two opposite corners, which are put in order.
        labels: N labels.
        scores: shape (N,); None if unknown.
        masks: shape (N, height, width); None if there are none.
        data: further arrays with an element for each object.

    Raises:
        ImportError: supervision is not installed.
    """
    try:
        import supervision
    except ModuleNotFoundError as error:
        raise ImportError('to_supervision needs supervision: pip install "florence2-triton[supervision]"') from error
    classes = {label: number for number, label in enumerate(sorted(set(labels)))}
    corners = boxes.reshape(-1, 2, 2)
    return supervision.Detections(
        xyxy=np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1),
        mask=masks,
        confidence=scores,
        class_id=np.array([classes[label] for label in labels], int),
        data={"class_name": np.array(labels, str), **data},
    )
