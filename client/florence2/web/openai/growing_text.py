"""The visible part of a text while it is generated."""

import re
from typing import Final

from florence2.parsing import decode
from florence2.results import Text
from florence2.tasks import AnswerForm, Task

TEXT_FORMS: Final = frozenset({AnswerForm.TEXT, AnswerForm.REGION_TEXT})
"""The forms of answers whose result is a text."""

_ANY_SIZE: Final = (1, 1)
# The beginning of what may become a special token, none of which is longer.
_UNCERTAIN: Final = re.compile(r"<[^<>\s]{0,15}$")


class GrowingText:
    """Removes special tokens from generated text, as `decode` does, piece by piece.

    The pieces, joined, are the text of the result. White space and the beginning of a possible special token are held
    back until the text after them is known.

    Args:
        task: a task whose result is a text.
    """

    def __init__(self, task: Task) -> None:
        assert task.answer in TEXT_FORMS, "only these results are texts"
        self._task = task
        self._generated = ""
        self._shown = ""

    def feed(self, generated: str) -> str:
        """The next piece of visible text; may be empty.

        Args:
            generated: the next piece of generated text, with special tokens.
        """
        self._generated += generated
        certain = _UNCERTAIN.sub("", self._generated)
        result = decode(self._task, certain, _ANY_SIZE)
        assert isinstance(result, Text), "the form of the task's answer is a text"
        return self.finish(result.text)

    def finish(self, text: str) -> str:
        """The rest of the visible text; empty if the pieces returned so far are not its beginning.

        The latter happens if removing a special token makes another one, which no model has a reason to generate.

        Args:
            text: the text of the result.
        """
        if not text.startswith(self._shown):
            return ""
        piece = text[len(self._shown) :]
        self._shown = text
        return piece
