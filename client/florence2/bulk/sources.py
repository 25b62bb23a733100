"""The images of a run: folders, globs, files, manifests, shards and tables, here or in a bucket."""

import re
from collections.abc import Iterator, Sequence
from typing import Final

from florence2.bulk import manifests, shards, tables
from florence2.bulk.extras import load_package
from florence2.bulk.folders import FileSource, FolderSource
from florence2.bulk.items import IsWanted, Item, Source
from florence2.bulk.storage import Location, storage_errors
from florence2.errors import InvalidArgumentError

_MAGIC: Final = re.compile(r"[*?\[]")
_HIDDEN: Final = re.compile(r"(^|/)\.")
_RANGE: Final = re.compile(r"\{[^{}]*(,|\.\.)[^{}]*\}")


class SeveralSources:
    """Sources one after the other."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = sources
        self.has_inputs = any(source.has_inputs for source in sources)

    def items(self, is_wanted: IsWanted) -> Iterator[Item]:
        """The images of each."""
        for source in self._sources:
            yield from source.items(is_wanted)

    def count(self) -> int | None:
        """The sum of their numbers of images, if all are known."""
        total = 0
        for source in self._sources:
            count = source.count()
            if count is None:
                return None
            total += count
        return total


class _NamedSource:
    """A source whose errors name it."""

    def __init__(self, source: Source, url: str) -> None:
        self._source = source
        self._url = url
        self.has_inputs = source.has_inputs

    def items(self, is_wanted: IsWanted) -> Iterator[Item]:
        """The images."""
        with storage_errors(self._url):
            yield from self._source.items(is_wanted)

    def count(self) -> int | None:
        """The number of images."""
        return self._source.count()


def open_sources(
    urls: Sequence[str], task_names: frozenset[str] = frozenset(), *, outputs: Sequence[Location] = ()
) -> Source:
    """The images of several paths, patterns and URLs.

    An id is a path in a folder, or begins with the file's name (`shard.tar::`, `list.jsonl::`). With several sources,
    ids begin with the source as given. Ids from a manifest or a table are used as they are.

    Args:
        urls: folders, globs (`**` matches any depth), patterns with braces (`shard-{000..099}.tar`), image files,
            manifests, shards or tables, which are known by their names.
        task_names: names of columns that are inputs, besides `text`, `prompt` and `region`.
        outputs: files and folders that the run writes, left out of folders and globs.

    Raises:
        InvalidArgumentError: no source is given, or a protocol is not known, or a source is an output.
        MissingPackageError: a package that a source needs is not installed.
        FileNotFoundError: a source does not exist, or a pattern matches nothing.
        OSError: a source cannot be accessed.
    """
    expanded = [each for url in urls for each in _expanded(url)]
    if not expanded:
        raise InvalidArgumentError.of_field("source", list(urls), "at least one")
    is_only = len(expanded) == 1
    sources = [_opened(url, task_names, outputs, is_only=is_only) for url in expanded]
    return sources[0] if is_only else SeveralSources(sources)


def _expanded(url: str) -> list[str]:
    """The paths that a pattern with braces stands for. Braces in the name of an existing file are not a pattern."""
    if not _RANGE.search(url) or Location.of(url).exists():
        return [url]
    return list(load_package("braceexpand").braceexpand(url))


def _opened(url: str, task_names: frozenset[str], outputs: Sequence[Location], *, is_only: bool) -> Source:
    with storage_errors(url):
        return _NamedSource(_open(url, task_names, outputs, is_only=is_only), url)


def _open(url: str, task_names: frozenset[str], outputs: Sequence[Location], *, is_only: bool) -> Source:
    location = Location.of(url)
    if any(location.is_in(output) and output.is_in(location) for output in outputs):
        raise InvalidArgumentError.of_field("source", url, "another place than that of an output")
    if _MAGIC.search(location.path) and not location.exists():
        return _matched(url, location, task_names, outputs, is_only=is_only)
    if location.is_folder():
        return FolderSource(location, "" if is_only else f"{url.rstrip('/')}/", outputs)
    if not location.exists():
        raise FileNotFoundError(f"{url} does not exist")
    return _file(location, location.name if is_only else url, task_names)


def _matched(
    url: str, pattern: Location, task_names: frozenset[str], outputs: Sequence[Location], *, is_only: bool
) -> Source:
    """The files that a glob matches, by path. An id is the path from the first folder with a wildcard."""
    matches = pattern.system.glob(pattern.path, detail=True).values()
    fixed = _fixed_part(pattern.path)
    # As in a shell, only a pattern with such a name matches what begins with a dot.
    takes_hidden = _HIDDEN.search(pattern.path.removeprefix(fixed)) is not None
    system = pattern.system
    # A link to a file is of the type "other".
    files = (each["name"] for each in matches if each["type"] == "file" or system.isfile(each["name"]))
    paths = sorted(path for path in files if takes_hidden or not _HIDDEN.search(path.removeprefix(fixed)))
    paths = [path for path in paths if not any(pattern.sibling(path).is_in(output) for output in outputs)]
    if not paths:
        raise FileNotFoundError(f"{url} matches no file")
    prefix = "" if is_only else _fixed_part(url)
    return SeveralSources(
        [_file(pattern.sibling(path), f"{prefix}{path.removeprefix(fixed)}", task_names) for path in paths]
    )


def _fixed_part(pattern: str) -> str:
    """The folders of a glob before its first wildcard."""
    found = _MAGIC.search(pattern)
    return pattern[: pattern.rfind("/", 0, found.start() if found else None) + 1]


def _file(file: Location, id_: str, task_names: frozenset[str]) -> Source:
    name = file.name.lower()
    if name.endswith(manifests.SUFFIXES):
        return manifests.ManifestSource(file, f"{id_}::")
    if name.endswith(shards.SUFFIXES):
        return shards.ShardSource(file, f"{id_}::")
    if name.endswith(tables.SUFFIXES):
        return tables.TableSource(file, f"{id_}::", task_names)
    return FileSource(file, id_)
