"""Reads examples from JSONL, COCO detection files, and folders of images and texts."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from training.finetune.coco import read_coco
from training.finetune.errors import DataError, SettingError
from training.finetune.examples import Example

# As common tools name them.
_PROMPT_FIELDS = ("prompt", "prefix")
_ANSWER_FIELDS = ("answer", "suffix")
_IMAGE_SUFFIXES = {".avif", ".bmp", ".gif", ".heic", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}


def read_examples(
    source: str, setting: str, form: str = "auto", prompt: str = "", classes: Sequence[str] = ()
) -> list[Example]:
    """Read all examples of a file or a folder.

    Args:
        source: the file or folder.
        setting: the setting that names it, for errors.
        form: `jsonl`, `coco`, `folder`, or `auto`, which decides by the name.
        prompt: for data without prompts: COCO (default `<OD>`) and folders (default `<CAPTION>`).
        classes: of COCO data, the names of the categories to learn; empty for all.

    Raises:
        SettingError: there is no such file or folder.
        DataError: its content is wrong. The message names the file, the line or entry, and the field.
    """
    path = Path(source)
    if not path.exists():
        raise SettingError(setting, source, "an existing file or folder")
    form = _form(path) if form == "auto" else form
    if (form == "folder") is not path.is_dir():
        raise SettingError(setting, source, f"a {'folder' if form == 'folder' else 'file'}, as format is {form}")
    if form == "folder":
        examples = list(_read_folder(path, prompt or "<CAPTION>"))
    elif form == "coco":
        examples = list(read_coco(path, prompt or "<OD>", classes))
    else:
        examples = list(_read_jsonl(path))
    if not examples:
        raise DataError(path.name, "examples", 0, "at least one")
    return examples


def _form(path: Path) -> str:
    if path.is_dir():
        return "folder"
    return "coco" if path.suffix == ".json" else "jsonl"


def _read_jsonl(path: Path) -> Iterator[Example]:
    """A JSON object per line; images are relative to the file, and empty lines are skipped."""
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            origin = f"{path.name}:{number}"
            if text := decoded(line, origin).strip():
                yield _of_line(text, path, origin)


def decoded(data: bytes, origin: str) -> str:
    """The text of a file or of a line of one; some programs begin a file with a byte order mark.

    Raises:
        DataError: it is not UTF-8.
    """
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(origin, "text", data[error.start : error.start + 8], f"UTF-8 ({error.reason})") from None


def _of_line(line: str, path: Path, origin: str) -> Example:
    try:
        content = json.loads(line)
    except ValueError as error:
        raise DataError(origin, "line", line, f"JSON ({error})") from None
    if not isinstance(content, dict):
        raise DataError(origin, "line", content, "a JSON object with image, prompt and answer")
    image = content.get("image")
    if not isinstance(image, str) or not image:
        raise DataError(origin, "image", image, "the name of an image file, relative to this file")
    if not (file := path.parent / image).is_file():
        raise DataError(origin, "image", image, f"an existing file ({file})")
    field, prompt = _one_of(content, _PROMPT_FIELDS, origin)
    if not isinstance(prompt, str) or not prompt.strip():
        raise DataError(origin, field, prompt, "text that is not empty")
    return Example(file, prompt, _answers(content, origin), origin)


def _answers(content: dict[str, Any], origin: str) -> tuple[str, ...]:
    """One answer, or a list of which the first is learned and measures accept each."""
    field, value = _one_of(content, _ANSWER_FIELDS, origin)
    answers = value if isinstance(value, list) else [value]
    if not answers or not all(isinstance(answer, str) for answer in answers):
        raise DataError(origin, field, value, "text, or a list of texts")
    return tuple(answers)


def _one_of(content: dict[str, Any], names: Sequence[str], origin: str) -> tuple[str, Any]:
    """The name and value of the field that is present, of several names for the same."""
    present = [name for name in names if name in content]
    if len(present) > 1:
        raise DataError(origin, present[1], content[present[1]], f"no such field next to {present[0]}")
    if not present:
        raise DataError(origin, names[0], None, f"a text ({' or '.join(names)})")
    return present[0], content[present[0]]


def _read_folder(folder: Path, prompt: str) -> Iterator[Example]:
    """Images, each next to its answer: `street.jpg` and `street.txt`."""
    for image in sorted(folder.iterdir()):
        if image.suffix.lower() not in _IMAGE_SUFFIXES:
            continue
        text = image.with_suffix(".txt")
        origin = f"{folder.name}/{image.name}"
        if not text.is_file():
            raise DataError(origin, "text", None, f"a file {text.name} next to it")
        answer = decoded(text.read_bytes(), f"{folder.name}/{text.name}").strip()
        if not answer:
            raise DataError(f"{folder.name}/{text.name}", "text", answer, "text that is not empty")
        yield Example(image, prompt, (answer,), f"{folder.name}/{text.name}")
