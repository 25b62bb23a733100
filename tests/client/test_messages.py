import numpy as np
import pytest
from florence2 import v1
from florence2.errors import ServerError
from florence2.messages import from_message, result_of, set_result, to_message
from florence2.results import Detections, Segmentation, Text, TextRegions
from hypothesis import given
from hypothesis import strategies as st

numbers = st.floats(-1e6, 1e6, width=32)
labels = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
outlines = st.lists(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=4), max_size=3)
coordinates = st.lists(numbers, min_size=8, max_size=8)
items = st.lists(st.tuples(labels, coordinates, outlines), max_size=4)
probabilities = st.floats(0, 1, width=32)
SCORES = ("scores", "label_scores", "location_scores", "likelihoods", "label_likelihoods", "location_likelihoods")


@st.composite
def scores(draw, of: list) -> list[float] | None:
    """A score for each item; None if there are no items."""
    each = st.lists(probabilities, min_size=len(of), max_size=len(of))
    return draw(st.none() | each) if of else None


@st.composite
def detections(draw) -> Detections:
    of = draw(items)
    polygons = [outline for _, _, outline in of]
    return Detections(
        [coordinates[:4] for _, coordinates, _ in of],
        [label for label, _, _ in of],
        polygons=polygons if any(polygons) else None,
        **{name: draw(scores(of)) for name in SCORES},
    )


@st.composite
def segmentations(draw) -> Segmentation:
    of = draw(items)
    polygons, words = [outline for _, _, outline in of], [label for label, _, _ in of]
    return Segmentation(polygons, words, scores=draw(scores(of)), likelihoods=draw(scores(of)))


@st.composite
def text_regions(draw) -> TextRegions:
    of = draw(items)
    quads, words = [quad for _, quad, _ in of], [label for label, _, _ in of]
    return TextRegions(quads, words, **{name: draw(scores(of)) for name in SCORES})


results = st.one_of(
    st.builds(Text, labels, st.none() | probabilities, st.none() | probabilities),
    detections(),
    segmentations(),
    text_regions(),
)


@given(results)
def test_a_result_survives_the_round_trip_through_its_serialized_message(result):
    message = to_message(result)
    received = type(message).FromString(message.SerializeToString())
    assert type(message).__name__ == type(result).__name__
    assert from_message(received) == result


@given(results)
def test_a_response_holds_the_result_that_was_set(result):
    response = v1.TaskResponse(text_result=v1.Text(text="the one before"), image_size={"width": 4, "height": 3})
    set_result(response, result)
    assert result_of(response) == result
    assert result_of(response).image_size == (4, 3)


def test_a_raw_response_has_no_result():
    assert result_of(v1.TaskResponse(text="</s><s>A dog.</s>")) is None


@pytest.mark.parametrize(
    ("result", "field"),
    [
        (Text("a"), "text_result"),
        (Detections.empty(), "detections"),
        (Segmentation.empty(), "segmentation"),
        (TextRegions.empty(), "text_regions"),
    ],
)
def test_an_empty_result_is_still_a_result(result, field):
    response = v1.TaskResponse()
    set_result(response, result)
    assert response.WhichOneof("result") == field


def test_every_field_is_filled():
    outlines = [[np.array([[5, 6], [7, 8]])]]
    values = [0.25, 0.125, 0.375, 0.5, 0.625, 0.75]
    arrays = {name: [value] for name, value in zip(SCORES, values, strict=True)}
    found = Detections([[1, 2, 3, 4]], ["dog"], polygons=outlines, **arrays)
    corners = v1.BoundingBox(x_min=1, y_min=2, x_max=3, y_max=4)
    outline = v1.Polygon(vertices=[v1.Point(x=5, y=6), v1.Point(x=7, y=8)])
    certainty = {"confidence": 0.25, "label_confidence": 0.125, "location_confidence": 0.375}
    certainty |= {"score": 0.5, "label_score": 0.625, "location_score": 0.75}
    expected = v1.Detection(label="dog", bounding_box=corners, polygons=[outline], **certainty)
    assert to_message(found) == v1.Detections(detections=[expected])


def test_a_score_of_zero_is_a_score():
    assert from_message(v1.Text(text="a", score=0, confidence=0)) == Text("a", score=0.0, likelihood=0.0)
    found = from_message(v1.Detections(detections=[v1.Detection(label="dog", score=0)]))
    assert (found.likelihoods.tolist(), found.label_likelihoods) == ([0], None)


def test_scores_are_none_if_some_items_lack_them():
    segments = [v1.Segment(score=0.5), v1.Segment()]
    assert from_message(v1.Segmentation(segments=segments)).likelihoods is None


def test_a_quad_without_four_corners_is_a_server_error():
    region = v1.TextRegion(text="HELLO", quad=v1.Quad(corners=[v1.Point(x=1, y=2)]))
    with pytest.raises(ServerError, match="got 1 corners, expected 4"):
        from_message(v1.TextRegions(text_regions=[region]))
