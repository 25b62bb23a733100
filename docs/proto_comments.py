"""Write the comments of the public protos as JSON, for the OpenAPI schema: the generated messages do not have them.

`make protos` runs it: python docs/proto_comments.py FILE
"""

import json
import sys
import tempfile
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Final, TypeAlias

from google.protobuf.descriptor_pb2 import DescriptorProto, EnumDescriptorProto, FileDescriptorProto, FileDescriptorSet
from grpc_tools import protoc  # type: ignore[import-untyped]

_PROTOS: Final = Path(__file__).parents[1] / "protos"
_PUBLIC: Final = "florence2/v1"
# The numbers of fields in descriptor.proto, of which the paths of comments consist.
_MESSAGES, _ENUMS, _FIELDS, _VALUES = 4, 5, 2, 2

Commented: TypeAlias = tuple[tuple[int, ...], str]
"""The path of something in a file, and its full name."""


def comments() -> dict[str, str]:
    """The comments of messages, fields, enumerations and their values, by full name."""
    found = {}
    for file in _parsed().file:
        texts = {tuple(each.path): each.leading_comments for each in file.source_code_info.location}
        for path, name in _named(file):
            if text := " ".join(texts.get(path, "").split()):
                found[name] = text
    return found


def _parsed() -> FileDescriptorSet:
    sources = sorted(path.relative_to(_PROTOS).as_posix() for path in (_PROTOS / _PUBLIC).glob("*.proto"))
    with tempfile.NamedTemporaryFile() as output:
        includes = [f"--proto_path={_PROTOS}", f"--proto_path={files('grpc_tools') / '_proto'}"]
        options = [*includes, "--include_source_info", f"--descriptor_set_out={output.name}"]
        if status := protoc.main(["protoc", *options, *sources]):
            raise SystemExit(status)
        return FileDescriptorSet.FromString(Path(output.name).read_bytes())


def _named(file: FileDescriptorProto) -> Iterator[Commented]:
    for index, message in enumerate(file.message_type):
        yield from _of_message((_MESSAGES, index), file.package, message)
    for index, enumeration in enumerate(file.enum_type):
        yield from _of_enumeration((_ENUMS, index), file.package, enumeration)


def _of_message(path: tuple[int, ...], package: str, message: DescriptorProto) -> Iterator[Commented]:
    name = f"{package}.{message.name}"
    yield path, name
    for index, field in enumerate(message.field):
        yield (*path, _FIELDS, index), f"{name}.{field.name}"


def _of_enumeration(path: tuple[int, ...], package: str, enumeration: EnumDescriptorProto) -> Iterator[Commented]:
    name = f"{package}.{enumeration.name}"
    yield path, name
    for index, value in enumerate(enumeration.value):
        yield (*path, _VALUES, index), f"{name}.{value.name}"


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(comments(), indent=1, ensure_ascii=False, sort_keys=True) + "\n")
