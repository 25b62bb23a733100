"""The events of a step, whatever the tokens: all of them together are the response."""

import time
from itertools import chain, pairwise

import numpy as np
import pytest
from florence2 import TokenScores, decode, v1
from florence2.messages import set_result
from florence2.streaming import StepEvents
from florence2.tasks import task_of
from hypothesis import example, given
from hypothesis import strategies as st

from tests.client.test_parsing import BOX, OTHER, SIZE
from tests.client.test_parsing import pieces as strange_pieces

SIZE_MESSAGE = v1.ImageSize(width=SIZE[0], height=SIZE[1])
REGION = {"region": {"x_min": 1, "y_min": 2, "x_max": 3, "y_max": 4}}
ITEM_REQUESTS = {
    "labeled boxes": v1.TaskRequest(object_detection={}),
    "boxes": v1.TaskRequest(region_proposal={}),
    "boxes or polygons": v1.TaskRequest(open_vocabulary_detection={"query": "a car"}),
    "quads": v1.TaskRequest(ocr_with_region={}),
}
TEXT_REQUESTS = {
    "text": v1.TaskRequest(caption={}),
    "text about a region": v1.TaskRequest(region_to_ocr=REGION),
    "polygons": v1.TaskRequest(region_to_segmentation=REGION),
    "free prompt": v1.TaskRequest(free_prompt={"text": "<DocVQA>"}),
    "raw": v1.TaskRequest(object_detection={}, raw=True),
}
REQUESTS = ITEM_REQUESTS | TEXT_REQUESTS


def response_of(request: v1.TaskRequest, tokens: list[str], log_probabilities: list[float]) -> v1.TaskResponse:
    """The response whose text consists of these tokens; the first one may be "</s><s>"."""
    ends = np.cumsum([len(token.encode()) for token in tokens]).tolist()
    response = v1.TaskResponse(text="".join(tokens), image_size=SIZE_MESSAGE)
    response.token_log_probabilities.extend(log_probabilities)
    response.token_masses.extend(np.exp(np.array(log_probabilities) / 2))  # more than the probabilities
    response.token_ends.extend(ends)
    if not request.raw:
        scores = TokenScores.of_response(response)
        set_result(response, decode(task_of(request), response.text, SIZE_MESSAGE, scores))
    return response


def fed(events: StepEvents, tokens: list[str], response: v1.TaskResponse, counts: list[int]) -> list[v1.StreamEvent]:
    """The events of calls of `feed`, which get this many tokens each."""
    sent: list[v1.StreamEvent] = []
    first = 0
    for count in counts:
        part = slice(first, first + count)
        text = "".join(tokens[part])
        ends, log_probabilities = response.token_ends[part], response.token_log_probabilities[part]
        sent.extend(events.feed(text, log_probabilities, ends, SIZE_MESSAGE, response.token_masses[part]))
        first += count
    return sent


def items_of(response: v1.TaskResponse) -> list:
    return [*response.detections.detections, *response.text_regions.text_regions]


def text_of(events: list[v1.StreamEvent]) -> str:
    return "".join(event.text_delta for event in events if event.HasField("text_delta"))


def sent_items(events: list[v1.StreamEvent]) -> list:
    return [getattr(event, kind) for event in events if (kind := event.WhichOneof("event")) != "text_delta"]


def one_token_at_a_time(request: v1.TaskRequest, tokens: list[str]) -> list[list[v1.StreamEvent]]:
    """The events of each token."""
    response = response_of(request, tokens, [-0.5] * len(tokens))
    events = StepEvents(request)
    parts = zip(tokens, response.token_log_probabilities, response.token_ends, response.token_masses, strict=True)
    return [events.feed(token, [log], [end], SIZE_MESSAGE, [mass]) for token, log, end, mass in parts]


def locations(*bins: int) -> list[str]:
    return [f"<loc_{location}>" for location in bins]


def items_after(request: v1.TaskRequest, tokens: list[str]) -> list[int]:
    """How many items have been sent after each token."""
    return np.cumsum([len(sent_items(events)) for events in one_token_at_a_time(request, tokens)]).tolist()


likely_pieces = st.one_of(
    st.sampled_from([BOX, BOX, BOX + OTHER, f"<poly>{BOX}</poly>", f"<poly>{BOX}<sep>{OTHER}</poly>", f"{BOX}<sep>"]),
    st.sampled_from(
        ["</s><s>", "</s>", "car", " big dog", "日本", "é", "<and>", "<", "</", "<s", "<lo", "c_5>", "</po"]
    ),
    strange_pieces.map(lambda piece: piece.replace("\ud800", "")),
)


@st.composite
def generations(draw) -> tuple[list[str], list[float], list[int], int]:
    """Tokens with log-probabilities, how many each call of `feed` gets, and the number of those calls.

    Tokens end anywhere in the text; some add nothing to it.
    """
    text = "".join(draw(st.lists(likely_pieces, max_size=30)))
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=40)))
    bounds = [0, *cuts, len(text)]
    tokens = [text[start:end] for start, end in pairwise(bounds)]
    log_probabilities = draw(st.lists(st.floats(-30, 0, width=32), min_size=len(tokens), max_size=len(tokens)))
    counts = []
    while sum(counts) < len(tokens):
        counts.append(min(draw(st.integers(1, 3)), len(tokens) - sum(counts)))
    return tokens, log_probabilities, counts, draw(st.integers(0, len(counts)))


@pytest.mark.parametrize("request_", REQUESTS.values(), ids=REQUESTS)
@given(generations())
@example((["car", BOX, "<loc_1", "<s>", "><poly>", BOX, "</poly>"], [-1.0] * 7, [1] * 7, 7))
@example(([BOX, "<poly>", BOX, "</poly>", "dog", BOX], [-1.0] * 6, [1] * 6, 6))
@example((["a", BOX, "<", "od>", BOX, "b", BOX], [-0.1] * 7, [1] * 7, 6))
def test_whatever_is_generated_the_events_together_are_the_response(request_, generation):
    tokens, log_probabilities, counts, calls = generation
    response = response_of(request_, tokens, log_probabilities)
    events = StepEvents(request_, number=3)
    sent = fed(events, tokens, response, counts[:calls])
    assert response.text.startswith(text_of(sent))
    assert items_of(response)[: len(sent_items(sent))] == sent_items(sent)
    sent += events.finish(response)
    assert text_of(sent) == response.text
    assert sent_items(sent) == items_of(response)
    assert {event.step for event in sent} <= {3}


def test_a_box_is_sent_with_its_last_location():
    tokens = ["</s><s>", "car", *locations(1, 2, 3, 4), *locations(5, 6, 7, 8), "dog", *locations(1, 2, 3, 4), "</s>"]
    expected = [0] * 5 + [1] * 4 + [2] * 5 + [3] * 2
    assert items_after(ITEM_REQUESTS["labeled boxes"], tokens) == expected
    assert items_after(ITEM_REQUESTS["boxes"], [token for token in tokens if "loc" in token]) == (
        [0] * 3 + [1] * 4 + [2] * 4 + [3]
    )


def test_a_text_region_is_sent_with_its_last_location():
    quad = locations(1, 2, 3, 4, 5, 6, 7, 8)
    tokens = ["</s><s>", "HEL", "LO", *quad, " wor", "ld", *quad, "</s>"]
    assert items_after(ITEM_REQUESTS["quads"], tokens) == [0] * 10 + [1] * 10 + [2] * 2


def test_an_outline_is_sent_with_its_end():
    outline = ["<poly>", *locations(1, 2, 3, 4), "<sep>", *locations(5, 6, 7, 8), "</poly>"]
    tokens = ["</s><s>", "car", *outline, *outline, "dog", *outline, "</s>"]
    expected = [0] * 12 + [1] * 11 + [2] * 12 + [3] * 2
    assert items_after(ITEM_REQUESTS["boxes or polygons"], tokens) == expected


def test_boxes_of_an_open_vocabulary_are_sent_when_no_polygon_can_replace_them():
    boxes = locations(1, 2, 3, 4, 5, 6, 7, 8)
    tokens = ["</s><s>", "car", *boxes, "dog", *boxes, "</s>"]
    assert items_after(ITEM_REQUESTS["boxes or polygons"], tokens) == [0] * 10 + [2] * 10
    replaced = [*tokens[:-1], "<poly>", *boxes, "</poly>"]
    response = response_of(ITEM_REQUESTS["boxes or polygons"], replaced, [-1] * len(replaced))
    assert [len(item.polygons) for item in response.detections.detections] == [0, 0, 1]


@pytest.mark.parametrize("request_", TEXT_REQUESTS.values(), ids=TEXT_REQUESTS)
def test_only_text_is_sent_if_the_result_has_no_items_or_the_request_is_raw(request_):
    tokens = ["</s><s>", "car", *locations(1, 2, 3, 4), "</s>"]
    events = chain.from_iterable(one_token_at_a_time(request_, tokens))
    assert [event.text_delta for event in events] == tokens


def test_no_event_is_sent_for_an_incomplete_character():
    assert StepEvents(TEXT_REQUESTS["text"]).feed("", [-0.5], [0], SIZE_MESSAGE) == []


def test_impossible_tokens_end_the_items_but_not_the_text():
    events = StepEvents(ITEM_REQUESTS["labeled boxes"])
    sent = events.feed(f"car{BOX}", [float("nan")], [3 + len(BOX)], SIZE_MESSAGE)
    sent += events.feed(f"dog{BOX}", [-0.5], [1], SIZE_MESSAGE)
    assert [event.text_delta for event in sent] == [f"car{BOX}", f"dog{BOX}"]


def test_items_have_no_scores_if_there_are_no_log_probabilities():
    events = StepEvents(ITEM_REQUESTS["labeled boxes"]).feed(f"car{BOX}", [], [], SIZE_MESSAGE)
    (item,) = sent_items(events)
    assert not item.HasField("score")
    assert not item.HasField("confidence")


def test_items_have_likelihoods_but_no_confidences_if_there_are_no_masses():
    events = StepEvents(ITEM_REQUESTS["labeled boxes"]).feed(f"car{BOX}", [-0.5], [3 + len(BOX)], SIZE_MESSAGE)
    (item,) = sent_items(events)
    assert item.HasField("score")
    assert not item.HasField("confidence")


@pytest.mark.parametrize("request_", ITEM_REQUESTS.values(), ids=ITEM_REQUESTS)
def test_time_is_linear_in_the_number_of_items(request_):
    """4,000 items take seconds if each one is decoded once, and an hour if each token decodes the whole answer."""
    tokens = ["car", *locations(*range(8))] * 4000
    events, end = StepEvents(request_), 0
    begin = time.process_time()
    for token in tokens:
        end += len(token)
        events.feed(token, [-0.5], [end], SIZE_MESSAGE)
    assert time.process_time() - begin < 60
