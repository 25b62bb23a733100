"""Florence-2 on Triton: a typed client, and the codec for prompts and answers that it rests on.

    import florence2

    with florence2.Client("localhost:8001") as client:
        found = client.detect("street.jpg")
        print(found.labels, found.boxes)
        florence2.draw("street.jpg", found).save("street-found.png")

Without a server, for those who run the model themselves:

    request = florence2.v1.TaskRequest(object_detection=florence2.v1.ObjectDetection())
    prompt = florence2.render_prompt(request)                       # "<OD>"
    sentence = florence2.expand_prompt(prompt)                      # "Locate the objects with …"
    found = florence2.decode("<OD>", generated_text, (640, 480))    # Detections

With `florence2.TokenScores` of the generated tokens, `decode` also says how sure the model was, as the client does.

Coordinates are pixels of the image as displayed. The messages of the wire are in `florence2.v1`; some have
the names of the results here, which are dataclasses over numpy arrays. `florence2.messages` converts.
"""

from importlib.metadata import version
from typing import TYPE_CHECKING

from florence2 import errors, v1
from florence2.drawing import draw
from florence2.parsing import decode
from florence2.prompts import expand_prompt, render_prompt
from florence2.results import Detections, Result, Segmentation, Text, TextRegions
from florence2.scores import TokenScores
from florence2.tasks import TASKS, Task

if TYPE_CHECKING:
    from florence2.client import TLS, Answer, AsyncClient, Client, Health, Keepalive, Retry, TruncatedAnswerError

__all__ = [
    "TASKS",
    "TLS",
    "Answer",
    "AsyncClient",
    "Client",
    "Detections",
    "Health",
    "Keepalive",
    "Result",
    "Retry",
    "Segmentation",
    "Task",
    "Text",
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


_OF_THE_CLIENT = ("TLS", "Answer", "AsyncClient", "Client", "Health", "Keepalive", "Retry", "TruncatedAnswerError")


def __getattr__(name: str) -> object:
    if name == "__version__":
        return version("florence2-triton")
    # Imported when first asked for: the codec alone needs no gRPC and no tritonclient.
    if name in _OF_THE_CLIENT:
        from florence2 import client

        return getattr(client, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
