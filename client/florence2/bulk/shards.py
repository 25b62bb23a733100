"""Images in tar files, as WebDataset writes them."""

import json
import re
import tarfile
from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import Final

from florence2.bulk.items import IsWanted, Item, has_image_suffix, id_text
from florence2.bulk.storage import MOST_BYTES, Location

SUFFIXES: Final = (".tar", ".tar.gz", ".tgz")
"""Names of shards end with one of these."""

_SAMPLE_BYTES: Final = 128 * 2**20  # in memory at once
_HIDDEN: Final = re.compile(r"(^|/)\.(?!\.?/)")


class ShardSource:
    """The images of a tar file. An id is a prefix and the path in the file.

    Members that follow each other and have the same path up to the first dot of their name are one sample: the fields
    of its `.json`, and its `.txt` as `text`, are inputs for its image. Hidden files are left out.
    """

    has_inputs = True

    def __init__(self, shard: Location, prefix: str) -> None:
        self._shard = shard
        self._prefix = prefix

    def items(self, is_wanted: IsWanted) -> Iterator[Item]:
        """The images. The file is read from its beginning to its end, and one sample is held in memory."""
        with self._shard.open() as file, tarfile.open(fileobj=file, mode="r|*") as shard:
            files = (member for member in shard if member.isfile() and not _HIDDEN.search(member.name))
            for _, members in groupby(files, lambda member: _key(member.name)):
                yield from self._sample(shard, members, is_wanted)

    def count(self) -> None:
        """Unknown: counting would mean reading the whole file."""

    def _sample(
        self, shard: tarfile.TarFile, members: Iterator[tarfile.TarInfo], is_wanted: IsWanted
    ) -> Iterator[Item]:
        images: dict[str, bytes] = {}
        inputs: dict[str, object] = {}
        size = 0
        for member in members:
            # Of no sample, but of a shard whose names have the same beginning: "frame.0001.png".
            if (size := size + member.size) > _SAMPLE_BYTES:
                yield from self._items(images, inputs)
                images, size = {}, member.size
            name = member.name.removeprefix("./")
            if has_image_suffix(name):
                id_ = id_text(f"{self._prefix}{name}")
                if is_wanted(id_):
                    if member.size > MOST_BYTES:
                        place = f"{self._shard.url}::{name}"
                        yield Item(
                            id_, place, b"", fault=f"{name} has {member.size:,} bytes, more than an image can have"
                        )
                    else:
                        images[name] = _content(shard, member)
            elif member.size <= MOST_BYTES and name.lower().endswith((".json", ".txt")):
                inputs.update(_inputs(name, _content(shard, member)))
        yield from self._items(images, inputs)

    def _items(self, images: Mapping[str, bytes], inputs: Mapping[str, object]) -> Iterator[Item]:
        for name, image in images.items():
            yield Item(id_text(f"{self._prefix}{name}"), f"{self._shard.url}::{name}", image, inputs)


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
