from florence2.v1 import geometry_pb2 as _geometry_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Text(_message.Message):
    __slots__ = ("text", "score", "confidence")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    text: str
    score: float
    confidence: float
    def __init__(self, text: _Optional[str] = ..., score: _Optional[float] = ..., confidence: _Optional[float] = ...) -> None: ...

class Detection(_message.Message):
    __slots__ = ("label", "bounding_box", "polygons", "score", "label_score", "location_score", "confidence", "label_confidence", "location_confidence")
    LABEL_FIELD_NUMBER: _ClassVar[int]
    BOUNDING_BOX_FIELD_NUMBER: _ClassVar[int]
    POLYGONS_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    LABEL_SCORE_FIELD_NUMBER: _ClassVar[int]
    LOCATION_SCORE_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    LABEL_CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    LOCATION_CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    label: str
    bounding_box: _geometry_pb2.BoundingBox
    polygons: _containers.RepeatedCompositeFieldContainer[_geometry_pb2.Polygon]
    score: float
    label_score: float
    location_score: float
    confidence: float
    label_confidence: float
    location_confidence: float
    def __init__(self, label: _Optional[str] = ..., bounding_box: _Optional[_Union[_geometry_pb2.BoundingBox, _Mapping]] = ..., polygons: _Optional[_Iterable[_Union[_geometry_pb2.Polygon, _Mapping]]] = ..., score: _Optional[float] = ..., label_score: _Optional[float] = ..., location_score: _Optional[float] = ..., confidence: _Optional[float] = ..., label_confidence: _Optional[float] = ..., location_confidence: _Optional[float] = ...) -> None: ...

class Detections(_message.Message):
    __slots__ = ("detections",)
    DETECTIONS_FIELD_NUMBER: _ClassVar[int]
    detections: _containers.RepeatedCompositeFieldContainer[Detection]
    def __init__(self, detections: _Optional[_Iterable[_Union[Detection, _Mapping]]] = ...) -> None: ...

class Segment(_message.Message):
    __slots__ = ("label", "polygons", "score", "confidence")
    LABEL_FIELD_NUMBER: _ClassVar[int]
    POLYGONS_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    label: str
    polygons: _containers.RepeatedCompositeFieldContainer[_geometry_pb2.Polygon]
    score: float
    confidence: float
    def __init__(self, label: _Optional[str] = ..., polygons: _Optional[_Iterable[_Union[_geometry_pb2.Polygon, _Mapping]]] = ..., score: _Optional[float] = ..., confidence: _Optional[float] = ...) -> None: ...

class Segmentation(_message.Message):
    __slots__ = ("segments",)
    SEGMENTS_FIELD_NUMBER: _ClassVar[int]
    segments: _containers.RepeatedCompositeFieldContainer[Segment]
    def __init__(self, segments: _Optional[_Iterable[_Union[Segment, _Mapping]]] = ...) -> None: ...

class TextRegion(_message.Message):
    __slots__ = ("text", "quad", "score", "label_score", "location_score", "confidence", "label_confidence", "location_confidence")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    QUAD_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    LABEL_SCORE_FIELD_NUMBER: _ClassVar[int]
    LOCATION_SCORE_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    LABEL_CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    LOCATION_CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    text: str
    quad: _geometry_pb2.Quad
    score: float
    label_score: float
    location_score: float
    confidence: float
    label_confidence: float
    location_confidence: float
    def __init__(self, text: _Optional[str] = ..., quad: _Optional[_Union[_geometry_pb2.Quad, _Mapping]] = ..., score: _Optional[float] = ..., label_score: _Optional[float] = ..., location_score: _Optional[float] = ..., confidence: _Optional[float] = ..., label_confidence: _Optional[float] = ..., location_confidence: _Optional[float] = ...) -> None: ...

class TextRegions(_message.Message):
    __slots__ = ("text_regions",)
    TEXT_REGIONS_FIELD_NUMBER: _ClassVar[int]
    text_regions: _containers.RepeatedCompositeFieldContainer[TextRegion]
    def __init__(self, text_regions: _Optional[_Iterable[_Union[TextRegion, _Mapping]]] = ...) -> None: ...
