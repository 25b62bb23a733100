import random

import pytest
from florence2.v1 import TaskRequest

from benchmarks.harness.lengths import ALBUM_TASKS, ANSWER_LENGTHS, SHORT_TOKENS, AnswerLength


def test_there_are_fourteen_tasks_and_each_is_a_field_of_the_request():
    fields = TaskRequest.DESCRIPTOR.oneofs_by_name["task"].fields
    assert len(ANSWER_LENGTHS) == 14
    assert set(ANSWER_LENGTHS) <= {field.name for field in fields}


def test_ranges_match_the_published_answers():
    captions = [ANSWER_LENGTHS[name] for name in ("caption", "detailed_caption", "more_detailed_caption")]
    assert (min(each.shortest for each in captions), max(each.longest for each in captions)) == (10, 90)
    assert ANSWER_LENGTHS["object_detection"] == AnswerLength(20, 150)
    assert ANSWER_LENGTHS["ocr_with_region"].longest == 600


@pytest.mark.parametrize("task", ANSWER_LENGTHS)
def test_lengths_are_uniform_over_their_range(task):
    generator = random.Random(0)
    length = ANSWER_LENGTHS[task]
    drawn = [length.sample(generator) for _ in range(2000)]
    assert length.shortest <= min(drawn)
    assert max(drawn) <= length.longest
    middle = (length.shortest + length.longest) / 2
    assert sum(drawn) / len(drawn) == pytest.approx(middle, rel=0.05)


def test_an_answer_has_room_for_its_start_and_end_token():
    assert min(length.shortest for length in ANSWER_LENGTHS.values()) > 2


def test_short_tasks_are_those_whose_every_answer_is_short():
    short = {task for task, length in ANSWER_LENGTHS.items() if length.is_short}
    assert short == {"caption", "open_vocabulary_detection", "region_to_category", "region_to_description"}
    assert all(ANSWER_LENGTHS[task].longest <= SHORT_TOKENS for task in short)


def test_an_album_has_eight_tasks():
    assert len(set(ALBUM_TASKS)) == 8
    assert set(ALBUM_TASKS) <= set(ANSWER_LENGTHS)
