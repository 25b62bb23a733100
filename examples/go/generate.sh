#!/usr/bin/env bash
# Generate the Go code of the protos and of Triton's service, beside go.mod or in another folder:
#   generate.sh [FOLDER]
# Needs protoc, protoc-gen-go, protoc-gen-go-grpc, and a python3 (or PYTHON=...) with tritonclient.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$here/../..
folder=${1:-$here}
descriptors=$(mktemp)
trap 'rm -f "$descriptors"' EXIT
"${PYTHON:-python3}" "$root/examples/descriptors.py" "$descriptors" > /dev/null
mkdir -p "$folder"

# The protos' own option go_package is florence2/v1, which is in go.mod's module; Triton's files name no package.
options=module=florence2,Mgrpc_service.proto=florence2/inference,Mmodel_config.proto=florence2/inference
protoc --proto_path="$root/protos" --go_out="$folder" --go_opt=module=florence2 "$root"/protos/florence2/v1/*.proto
protoc --descriptor_set_in="$descriptors" --go_out="$folder" --go_opt="$options" \
  --go-grpc_out="$folder" --go-grpc_opt="$options" grpc_service.proto model_config.proto
