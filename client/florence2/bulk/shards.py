"""Images in tar files, as WebDataset writes them."""

import json
import tarfile
from collections.abc import Iterator
from itertools import groupby
from typing import Final

from florence2.bulk.items import IsWanted, Item, has_image_suffix
from florence2.bulk.storage import Location

SUFFIXES: Final = (".tar", ".tar.gz", ".tgz")
"""Names of shards end with one of these."""


class ShardSource:
    """The images of a tar file. An id is a prefix and the path in the file.

    Members that follow each other and have the same path up to the first dot of their name are one sample: the fields
    of its `.json`, and its `.txt` as `text`, are inputs for its image.
    """

    has_inputs = True

    def __init__(self, shard: Location, prefix: str) -> None:
        self._shard = shard
        self._prefix = prefix

    def items(self, is_wanted: IsWanted) -> Iterator[Item]:
        """The images. The file is read from its beginning to its end, and one sample is held in memory."""
        with self._shard.open() as file, tarfile.open(fileobj=file, mode="r|*") as shard:
            files = (member for member in shard if member.isfile())
            for _, members in groupby(files, lambda member: _key(member.name)):
                yield from self._sample(shard, members, is_wanted)

    def count(self) -> None:
        """Unknown: counting takes reading the whole file."""

    def _sample(
        self, shard: tarfile.TarFile, members: Iterator[tarfile.TarInfo], is_wanted: IsWanted
    ) -> Iterator[Item]:
        images: dict[str, bytes] = {}
        inputs: dict[str, object] = {}
        for member in members:
            name = member.name.removeprefix("./")
            if has_image_suffix(name):
                if is_wanted(f"{self._prefix}{name}"):
                    images[name] = _content(shard, member)
            elif name.lower().endswith((".json", ".txt")):
                inputs.update(_inputs(name, _content(shard, member)))
        for name, image in images.items():
            yield Item(f"{self._prefix}{name}", f"{self._shard.url}::{name}", image, inputs)


def _key(name: str) -> str:
    folder, separator, file = name.rpartition("/")
    return f"{folder}{separator}{file.partition('.')[0]}"


def _content(shard: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = shard.extractfile(member)
    assert file is not None, "only regular files are read"
    return file.read()


def _inputs(name: str, content: bytes) -> dict[str, object]:
    """The inputs in a sample's text. A file that is not a JSON object has none: samples hold all kinds of files."""
    if name.lower().endswith(".txt"):
        return {"text": content.decode(errors="replace").strip()}
    try:
        fields = json.loads(content)
    except ValueError:
        return {}
    return fields if isinstance(fields, dict) else {}
