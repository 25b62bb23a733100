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


def detections(of: list) -> Detections:
    polygons = [outline for _, _, outline in of]
    found = [numbers[:4] for _, numbers, _ in of]
    return Detections(found, [label for label, _, _ in of], polygons=polygons if any(polygons) else None)


results = st.one_of(
    labels.map(Text),
    items.map(detections),
    items.map(lambda of: Segmentation([outline for _, _, outline in of], [label for label, _, _ in of])),
    items.map(lambda of: TextRegions([quad for _, quad, _ in of], [label for label, _, _ in of])),
)


@given(results)
def test_a_result_comes_back_from_its_message_on_the_wire(result):
    message = to_message(result)
    received = type(message).FromString(message.SerializeToString())
    assert type(message).__name__ == type(result).__name__
    assert from_message(received) == result


@given(results)
def test_a_response_holds_the_result_it_was_given(result):
    response = v1.TaskResponse(text_result=v1.Text(text="the one before"))
    set_result(response, result)
    assert result_of(response) == result


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


def test_fields_are_filled_by_their_meaning():
    found = Detections([[1, 2, 3, 4]], ["dog"], scores=[0.5], polygons=[[np.array([[5, 6], [7, 8]])]])
    corners = v1.BoundingBox(x_min=1, y_min=2, x_max=3, y_max=4)
    outline = v1.Polygon(vertices=[v1.Point(x=5, y=6), v1.Point(x=7, y=8)])
    expected = v1.Detection(label="dog", bounding_box=corners, polygons=[outline])
    assert to_message(found) == v1.Detections(detections=[expected])


def test_a_quad_without_four_corners_is_the_server_s_fault():
    region = v1.TextRegion(text="HELLO", quad=v1.Quad(corners=[v1.Point(x=1, y=2)]))
    with pytest.raises(ServerError, match="expected 4 corners, got 1"):
        from_message(v1.TextRegions(text_regions=[region]))
