"""Florence-2 on Triton: a typed client, and the codec for prompts and answers that it is built on.

    import florence2

    with florence2.Client("localhost:8001") as client:
        found = client.detect("street.jpg")
        print(found.labels, found.boxes)
        florence2.draw("street.jpg", found).save("street-found.png")

The codec also works without a client, for programs that run the model themselves:

    request = florence2.v1.TaskRequest(object_detection=florence2.v1.ObjectDetection())
    prompt = florence2.render_prompt(request)                       # "<OD>"
    sentence = florence2.expand_prompt(prompt)                      # "Locate the objects with …"
    found = florence2.decode("<OD>", generated_text, (640, 480))    # Detections

With the `florence2.TokenScores` of the generated tokens, `decode` also returns scores, as the client does.

Coordinates are pixels of the image as displayed. The protobuf messages are in `florence2.v1`; some have the names of
the results here, which are dataclasses over numpy arrays. `florence2.messages` converts between them.

`florence2.transports` has the interface between the clients and a server, `florence2.testing` a mock of it for tests.
"""

from typing import TYPE_CHECKING

from florence2 import errors, v1
from florence2.parsing import decode
from florence2.plan_results import AnalyzedRegion, GroundedCaption, PlanResult, RegionAnalysis, TaskResults
from florence2.prompts import expand_prompt, render_prompt
from florence2.results import Detections, Result, Segmentation, Text, TextRegions
from florence2.scores import TokenScores
from florence2.tasks import TASKS, Task

if TYPE_CHECKING:
    from florence2.client import (
        TLS,
        Answer,
        AsyncClient,
        Client,
        EngineInfo,
        Finished,
        Health,
        ItemFound,
        Keepalive,
        Retry,
        ServerInfo,
        StepAnswer,
        StepFinished,
        StepStarted,
        TextDelta,
        TruncatedAnswerError,
    )
    from florence2.drawing import draw

    __version__: str

__all__ = [
    "TASKS",
    "TLS",
    "AnalyzedRegion",
    "Answer",
    "AsyncClient",
    "Client",
    "Detections",
    "EngineInfo",
    "Finished",
    "GroundedCaption",
    "Health",
    "ItemFound",
    "Keepalive",
    "MapOutcome",
    "PlanResult",
    "RegionAnalysis",
    "Result",
    "Retry",
    "Segmentation",
    "ServerInfo",
    "StepAnswer",
    "StepFinished",
    "StepStarted",
    "Task",
    "TaskResults",
    "Text",
    "TextDelta",
    "TextRegions",
    "TokenScores",
    "TruncatedAnswerError",
    "decode",
    "draw",
    "errors",
    "expand_prompt",
    "render_prompt",
    "v1",
]


_CLIENT_NAMES = (
    "TLS",
    "Answer",
    "AsyncClient",
    "Client",
    "EngineInfo",
    "Finished",
    "Health",
    "ItemFound",
    "Keepalive",
    "MapOutcome",
    "Retry",
    "ServerInfo",
    "StepAnswer",
    "StepFinished",
    "StepStarted",
    "TextDelta",
    "TruncatedAnswerError",
)


def __getattr__(name: str) -> object:
    # Imported on first use: a probe (`florence2 health`) needs neither the package's metadata nor Pillow, and the codec
    # alone neither gRPC nor tritonclient.
    if name == "__version__":
        from importlib.metadata import version

        return version("florence2-triton")
    if name == "draw":
        from florence2.drawing import draw

        return draw
    if name in _CLIENT_NAMES:
        from florence2 import client

        return getattr(client, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
