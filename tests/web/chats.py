"""Requests for chat completions, and what comes back."""

import base64
import json

from tests.web.conftest import picture

PATH = "/v1/chat/completions"


def data_uri(image: bytes | None = None, media_type: str = "image/png") -> str:
    """An image as OpenAI's clients send it."""
    return f"data:{media_type};base64,{base64.b64encode(image or picture()).decode()}"


def image_part(url: str) -> dict:
    """A part of a message."""
    return {"type": "image_url", "image_url": {"url": url}}


def message(text: str, *urls: str) -> dict:
    """A user's message with a text and images."""
    return {"role": "user", "content": [{"type": "text", "text": text}, *map(image_part, urls or [data_uri()])]}


def chat(text: str, model: str = "florence2", **fields) -> dict:
    """The body of a request with a small image."""
    return {"model": model, "messages": [message(text)], **fields}


def content(response) -> str:
    """The content of a completion."""
    assert response.status_code == 200, response.text
    return response.json()["choices"][0]["message"]["content"]


def error(response) -> tuple[int, str | None, str]:
    """Status, field and message of an error."""
    found = response.json()["error"]
    assert found.keys() == {"message", "type", "param", "code"}
    return response.status_code, found["param"], found["message"]


def chunks(response) -> list[dict]:
    """The chunks of a stream, without its end."""
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/event-stream")
    lines = [line.removeprefix("data: ") for line in response.text.splitlines() if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"]


def streamed_content(received: list[dict]) -> str:
    """The content of a stream's chunks, joined."""
    return "".join(choice["delta"].get("content", "") for each in received for choice in each["choices"])
