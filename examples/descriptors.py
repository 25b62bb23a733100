"""Write the descriptors of Triton's gRPC service to a file: `python examples/descriptors.py triton.binpb`.

A client in any language needs Triton's service beside `protos/florence2/v1`. The installed tritonclient carries it, in
the version that this project is tested with. The file is a `google.protobuf.FileDescriptorSet`, which compilers take
in place of the sources:

    protoc --descriptor_set_in=triton.binpb ... grpc_service.proto model_config.proto

The package of both files is `inference`, and neither names a package of any language.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from tritonclient.grpc import service_pb2


def triton_descriptors() -> FileDescriptorSet:
    """The descriptors of `inference.GRPCInferenceService`: each file once, after those that it imports."""
    files = dict.fromkeys(_with_imports(service_pb2.DESCRIPTOR))
    return FileDescriptorSet(file=[FileDescriptorProto.FromString(each.serialized_pb) for each in files])


def _with_imports(file: FileDescriptor) -> Iterator[FileDescriptor]:
    for imported in file.dependencies:
        yield from _with_imports(imported)
    yield file


def main() -> None:
    """Write the file, and print the names of the sources in it."""
    parser = argparse.ArgumentParser(description="Write the descriptors of Triton's gRPC service to a file.")
    parser.add_argument("file", type=Path, help="such as build/triton.binpb; its folder is created")
    file: Path = parser.parse_args().file
    descriptors = triton_descriptors()
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(descriptors.SerializeToString(deterministic=True))
    print(*(each.name for each in descriptors.file))  # noqa: T201 - a command prints


if __name__ == "__main__":
    main()
