#!/usr/bin/env bash
# Generate the Java code of the protos and of Triton's service, where pom.xml expects it or in another folder:
#   generate.sh [FOLDER]
# Needs protoc, grpc_java_plugin (Debian's name; or GRPC_JAVA_PLUGIN=...), and a python3 (or PYTHON=...) with
# tritonclient.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$here/../..
folder=${1:-$here/target/generated-sources/protobuf}
plugin=${GRPC_JAVA_PLUGIN:-$(command -v grpc_java_plugin)}
descriptors=$(mktemp)
trap 'rm -f "$descriptors"' EXIT
"${PYTHON:-python3}" "$root/examples/descriptors.py" "$descriptors" > /dev/null
mkdir -p "$folder"

protoc --proto_path="$root/protos" --java_out="$folder" "$root"/protos/florence2/v1/*.proto
protoc --descriptor_set_in="$descriptors" --java_out="$folder" \
  --plugin=protoc-gen-grpc-java="$plugin" --grpc-java_out="$folder" grpc_service.proto model_config.proto
