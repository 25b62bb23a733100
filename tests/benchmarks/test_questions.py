import io
from collections import Counter

import PIL.Image
from florence2.prompts import check_request

from benchmarks.questions import album_subjects, caption_subjects, mixed_subjects

SEED = 3


def test_a_seed_gives_the_same_questions_again():
    first, second = ([each.questions(0)[0] for each in mixed_subjects(3, SEED)] for _ in range(2))
    assert first == second
    assert mixed_subjects(3, SEED) != mixed_subjects(3, SEED + 1)


def test_tasks_come_in_equal_shares():
    tasks = Counter(task for subject in mixed_subjects(28, SEED) for task, _ in subject.lengths)
    assert set(tasks.values()) == {2}
    assert len(tasks) == 14


def test_a_shorter_run_asks_the_beginning_of_a_longer_one():
    assert mixed_subjects(28, SEED)[:10] == mixed_subjects(10, SEED)


def test_pictures_differ_and_are_jpegs_of_realistic_size():
    images = [subject.questions(0)[0].image for subject in mixed_subjects(4, SEED)]
    assert len(set(images)) == 4
    for image in images:
        picture = PIL.Image.open(io.BytesIO(image))
        assert picture.format == "JPEG"
        assert 480 <= max(picture.size) <= 1280


def test_another_attempt_changes_the_picture_and_keeps_task_and_length():
    subject = mixed_subjects(1, SEED)[0]
    one, other = subject.questions(0)[0], subject.questions(1)[0]
    assert one.image != other.image
    assert (one.task, one.answer_tokens) == (other.task, other.answer_tokens)


def test_an_album_asks_all_its_questions_about_one_picture():
    questions = album_subjects(1, SEED)[0].questions(0)
    assert len(questions) == 8
    assert len({question.image for question in questions}) == 1
    assert len({question.name for question in questions}) == 8


def test_captions_are_of_three_kinds():
    assert len({subject.lengths[0][0] for subject in caption_subjects(3, SEED)}) == 3


def test_a_stamp_changes_the_bytes_and_not_the_picture():
    question = mixed_subjects(1, SEED)[0].questions(0)[0]
    stamped = question.stamped("round 2")
    assert stamped.image != question.image
    pictures = [PIL.Image.open(io.BytesIO(each.image)).tobytes() for each in (question, stamped)]
    assert pictures[0] == pictures[1]


def test_requests_are_valid_and_fix_the_length():
    for subject in mixed_subjects(14, SEED):
        question = subject.questions(0)[0]
        request = question.our_request(num_beams=3)
        check_request(request)
        options = request.generation
        assert options.min_new_tokens == options.max_new_tokens == question.answer_tokens
        assert options.num_beams == 3
        assert request.raw
        assert question.prompt.startswith("<")
