"""Answers as callers see them: without the address of the server that answered."""

from typing import Any

from florence2.client.answers import Answer


def answer_data(answer: Answer) -> dict[str, Any]:
    """`Answer.to_dict()` without `url`: it is an address behind this server."""
    return {name: value for name, value in answer.to_dict().items() if name != "url"}
