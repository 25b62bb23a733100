import io
from collections import Counter

import PIL.Image
from florence2.prompts import check_request

from benchmarks.harness.requests import album_groups, caption_groups, mixed_groups

SEED = 3


def test_a_seed_reproduces_its_requests():
    first, second = ([each.requests(0)[0] for each in mixed_groups(3, SEED)] for _ in range(2))
    assert first == second
    assert mixed_groups(3, SEED) != mixed_groups(3, SEED + 1)


def test_tasks_come_in_equal_shares():
    tasks = Counter(task for group in mixed_groups(28, SEED) for task, _ in group.lengths)
    assert set(tasks.values()) == {2}
    assert len(tasks) == 14


def test_a_shorter_run_sends_the_first_requests_of_a_longer_one():
    assert mixed_groups(28, SEED)[:10] == mixed_groups(10, SEED)


def test_images_differ_and_are_jpegs_of_realistic_size():
    images = [group.requests(0)[0].image for group in mixed_groups(4, SEED)]
    assert len(set(images)) == 4
    for image in images:
        opened = PIL.Image.open(io.BytesIO(image))
        assert opened.format == "JPEG"
        assert 480 <= max(opened.size) <= 1280


def test_another_attempt_changes_the_image_and_keeps_task_and_length():
    group = mixed_groups(1, SEED)[0]
    one, other = group.requests(0)[0], group.requests(1)[0]
    assert one.image != other.image
    assert (one.task, one.answer_tokens) == (other.task, other.answer_tokens)


def test_all_requests_of_an_album_group_are_about_one_image():
    requests = album_groups(1, SEED)[0].requests(0)
    assert len(requests) == 8
    assert len({request.image for request in requests}) == 1
    assert len({request.name for request in requests}) == 8


def test_captions_are_of_three_kinds():
    assert len({group.lengths[0][0] for group in caption_groups(3, SEED)}) == 3


def test_a_stamp_changes_the_bytes_and_not_the_pixels():
    request = mixed_groups(1, SEED)[0].requests(0)[0]
    stamped = request.stamped("round 2")
    assert stamped.image != request.image
    pixels = [PIL.Image.open(io.BytesIO(each.image)).tobytes() for each in (request, stamped)]
    assert pixels[0] == pixels[1]


def test_requests_are_valid_and_fix_the_answer_length():
    for group in mixed_groups(14, SEED):
        request = group.requests(0)[0]
        message = request.to_task_request(num_beams=3)
        check_request(message)
        options = message.generation
        assert options.min_new_tokens == options.max_new_tokens == request.answer_tokens
        assert options.num_beams == 3
        assert message.raw
        assert request.prompt.startswith("<")
