#!/usr/bin/env bash
# Build the program with Debian's packages, in GOPATH mode and without a module proxy:
#   build.sh FOLDER
# Writes the program FOLDER/scene, and the workspace FOLDER/src. See generate.sh for what else it needs.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1/src/florence2"
folder=$(cd "$1" && pwd)

cp -R "$here"/*.go "$here/cmd" "$folder/src/florence2"
"$here/generate.sh" "$folder/src/florence2"
export CGO_ENABLED=0 GO111MODULE=off GOPATH=$folder:/usr/share/gocode
go build -o "$folder/scene" florence2/cmd/scene
