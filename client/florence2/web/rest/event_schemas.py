"""The JSON schema of a server-sent event."""

from typing import Final

from florence2.web.rest.message_schemas import Schema

_STEP: Final[Schema] = {"type": "integer", "minimum": 0, "description": "The number of the step, from 0."}
_TEXT: Final[Schema] = {"type": "string"}
_REFERENCE: Final = "#/components/schemas/"


def _data(**properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, "required": list(properties)}


_ITEM: Final[Schema] = {
    "description": "As in the `items` of the result.",
    "anyOf": [{"$ref": f"{_REFERENCE}{result}/properties/items/items"} for result in ("Detections", "TextRegions")],
}
_TEXTS: Final = {
    "step_started": "A step of a cascade or a task list started. Not sent for a single task. `item` is the index of "
    "the detection, if the step is about one.",
    "text_delta": "The next piece of generated text, including special tokens. With several beams, pieces are held "
    "back until all beams agree on them.",
    "item_found": "The next detection or text region. `min_score` and `labels` apply; `max_items` does not, because it "
    "depends on all items.",
    "step_finished": "A step ended, with a result and what else is known about it, or with an error.",
    "finished": "The answer, as without a stream. The last event.",
    "error": "The problem that ended the request. The last event.",
}
_DATA: Final[dict[str, Schema]] = {
    "step_started": _data(step=_STEP, task=_TEXT),
    "text_delta": _data(step=_STEP, text=_TEXT),
    "item_found": _data(step=_STEP, item=_ITEM),
    "step_finished": _data(step=_STEP, task=_TEXT),
    "finished": {"$ref": f"{_REFERENCE}Answer"},
    "error": {"$ref": f"{_REFERENCE}Problem"},
}


def _event(name: str) -> Schema:
    content = {"type": "string", "contentMediaType": "application/json", "contentSchema": _DATA[name]}
    return {**_data(event={"const": name}, data=content), "description": _TEXTS[name]}


EVENT_SCHEMA: Final[Schema] = {"oneOf": [_event(name) for name in _DATA]}
"""The schema of each event of a stream. An error before the first event is a response with a status of its own."""
