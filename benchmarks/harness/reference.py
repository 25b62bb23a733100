"""What every answer is held against: `generate()`, one question at a time.

Random weights come to near ties, which the rounding of another batch shape decides otherwise. A benchmark that fails on
those would measure nothing, so only questions are asked whose answer is numerically decided:

- greedy search: at every step the chosen token leads the next best by more than `NARROWEST_LEAD`, several times the
  rounding seen between batch shapes;
- beam search, where leads of beams over beams decide too: the answer stays when the pixels are changed by a relative
  3e-6 of noise, three times what rounding does, and by the same noise with the opposite sign: whichever way a near tie
  leans, one of them tips it.

A picture with an undecided answer is replaced by the next one, with the same tasks and lengths, so that lengths stay as
they were drawn (long answers meet more near ties). How many were replaced is reported. Both servers are asked exactly
the same questions.
"""

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import PIL.Image
import torch
from transformers import Florence2ForConditionalGeneration, Florence2Processor

from benchmarks.fingerprint import fingerprint
from benchmarks.questions import Question, Subject

# Between a batch and a row alone logits differ by 1e-5 on average and 6e-5 at most; pixel noise of 1e-6 does the same.
NARROWEST_LEAD = 1e-4
PIXEL_NOISE = 3e-6
_ATTEMPTS = 20
# Answers are cached; whatever decides them is part of the name of the cache.
_CODE = [Path(__file__).with_name(name) for name in ("reference.py", "questions.py", "lengths.py")]


class UndecidedError(Exception):
    """No picture was found whose answers are numerically decided."""


@dataclass(frozen=True)
class Pool:
    """Questions with their expected answers.

    Attributes:
        questions: in the order of their subjects.
        expected: by name, the answer's text with special tokens.
        replaced: how many pictures were replaced because rounding could have changed an answer.
    """

    questions: list[Question]
    expected: dict[str, str]
    replaced: int


def answer_pool(
    subjects: Sequence[Subject],
    num_beams: int,
    checkpoint: Path,
    cache: Path,
    on_progress: Callable[[int, int], None],
) -> Pool:
    """Questions about all subjects, whose answers are decided, with these.

    Args:
        subjects: what is asked.
        num_beams: of the search.
        checkpoint: a folder; its name tells its contents.
        cache: where answers are kept between runs.
        on_progress: called with how many subjects of how many are done.

    Raises:
        UndecidedError: a subject's answers stay undecided.
    """
    # The subject is part of the name under which it is cached: a shorter run's answers serve a longer one too.
    file = cache / f"answers-{checkpoint.name}-{num_beams}-{fingerprint(*_CODE)}.json"
    cached: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    reference: Reference | None = None
    pool = Pool([], {}, 0)
    for done, subject in enumerate(subjects):
        on_progress(done, len(subjects))
        key = fingerprint(subject)
        if key not in cached:
            reference = reference or Reference(checkpoint)
            cached[key] = reference.decided_answers(subject, num_beams)
            file.write_text(json.dumps(cached))
        questions = subject.questions(cached[key]["attempt"])
        answers = dict(zip((question.name for question in questions), cached[key]["answers"], strict=True))
        pool = Pool(pool.questions + questions, pool.expected | answers, pool.replaced + int(cached[key]["attempt"]))
    on_progress(len(subjects), len(subjects))
    return pool


class Reference:
    """Hugging Face, one question at a time."""

    def __init__(self, checkpoint: Path) -> None:
        self._model: Any = Florence2ForConditionalGeneration.from_pretrained(checkpoint, dtype=torch.float32).eval()
        self._processor: Any = Florence2Processor.from_pretrained(checkpoint)

    def decided_answers(self, subject: Subject, num_beams: int) -> dict[str, Any]:
        """The first attempt at a subject whose answers are all decided, and these.

        Raises:
            UndecidedError: there is none.
        """
        for attempt in range(_ATTEMPTS):
            answers: list[str] = []
            for question in subject.questions(attempt):
                answer = self._decided_answer(question, num_beams)
                if answer is None:
                    break
                answers.append(answer)
            else:
                return {"attempt": attempt, "answers": answers}
        raise UndecidedError(f"{subject.name}: {_ATTEMPTS} pictures, and rounding could change an answer to each")

    @torch.inference_mode()
    def _decided_answer(self, question: Question, num_beams: int) -> str | None:
        """The answer's text; None when rounding could change it."""
        picture = PIL.Image.open(io.BytesIO(question.image))
        inputs = self._processor(images=picture, text=question.prompt, return_tensors="pt")
        options = {
            "num_beams": num_beams,
            "min_new_tokens": question.answer_tokens,
            "max_new_tokens": question.answer_tokens,
        }
        if num_beams == 1:
            generated = self._model.generate(**inputs, **options, output_scores=True, return_dict_in_generate=True)
            tokens = generated.sequences[0].tolist()
            is_decided = _narrowest_lead(generated.scores) > NARROWEST_LEAD
        else:
            tokens = self._model.generate(**inputs, **options)[0].tolist()
            is_decided = self._survives_noise(inputs, options, tokens)
        has_padding = self._processor.tokenizer.pad_token_id in tokens  # a text with it could not be told from one cut
        return str(self._processor.batch_decode([tokens])[0]) if is_decided and not has_padding else None

    def _survives_noise(self, inputs: Any, options: dict[str, int], tokens: list[int]) -> bool:
        pixels = inputs["pixel_values"]
        noise = pixels * PIXEL_NOISE * torch.randn(pixels.shape, generator=torch.Generator().manual_seed(0))
        both = {
            "input_ids": inputs["input_ids"].repeat(2, 1),
            "attention_mask": inputs["attention_mask"].repeat(2, 1),
            "pixel_values": torch.cat([pixels + noise, pixels - noise]),
        }
        return all(row == tokens for row in self._model.generate(**both, **options).tolist())


def _narrowest_lead(scores: Sequence[torch.Tensor]) -> float:
    """The least by which a chosen token's score leads the next best one's; infinite where it is forced."""
    best_two = torch.stack([step[0].topk(2).values for step in scores])
    return float((best_two[:, 0] - best_two[:, 1]).min())
