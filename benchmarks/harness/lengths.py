"""Answer lengths by task.

The ranges are those of Florence-2's own answers: captions 10 to 90 tokens, detection 20 to 150, OCR with regions up to
600, a few tokens for a region. Lengths are uniformly distributed.
"""

import random
from dataclasses import dataclass

# A task counts as short if none of its answers is longer.
SHORT_TOKENS = 40


@dataclass(frozen=True)
class AnswerLength:
    """The range of a task's answers in tokens, start and end token included."""

    shortest: int
    longest: int

    def sample(self, generator: random.Random) -> int:
        """Draw the length of one answer."""
        return generator.randint(self.shortest, self.longest)

    @property
    def is_short(self) -> bool:
        """Whether the task is short."""
        return self.longest <= SHORT_TOKENS


# The fourteen tasks of Florence-2's paper and notebook, by field of TaskRequest.
ANSWER_LENGTHS = {
    "caption": AnswerLength(10, 20),
    "detailed_caption": AnswerLength(25, 60),
    "more_detailed_caption": AnswerLength(50, 90),
    "object_detection": AnswerLength(20, 150),
    "dense_region_caption": AnswerLength(20, 150),
    "region_proposal": AnswerLength(20, 150),
    "phrase_grounding": AnswerLength(15, 60),
    "referring_expression_segmentation": AnswerLength(30, 120),
    "region_to_segmentation": AnswerLength(30, 120),
    "open_vocabulary_detection": AnswerLength(10, 40),
    "region_to_category": AnswerLength(4, 10),
    "region_to_description": AnswerLength(6, 20),
    "ocr": AnswerLength(10, 120),
    "ocr_with_region": AnswerLength(40, 600),
}

# The tasks for indexing an album: those that need no input but the image.
ALBUM_TASKS = (
    "caption",
    "detailed_caption",
    "more_detailed_caption",
    "object_detection",
    "dense_region_caption",
    "region_proposal",
    "ocr",
    "ocr_with_region",
)
