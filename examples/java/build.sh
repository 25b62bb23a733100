#!/usr/bin/env bash
# Build the client, the program and the tests with Debian's packages and javac, without Maven:
#   build.sh FOLDER
# Writes classes and the file FOLDER/classpath. See generate.sh for what else it needs.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1/generated" "$1/classes"
folder=$(cd "$1" && pwd)

packages=""
for jar in grpc-api grpc-context grpc-core grpc-netty grpc-protobuf grpc-protobuf-lite grpc-stub protobuf guava gson \
  error_prone_annotations geronimo-annotation-1.3-spec opencensus-api perfmark-api netty-buffer netty-codec \
  netty-codec-http netty-codec-http2 netty-codec-socks netty-common netty-handler netty-handler-proxy netty-resolver \
  netty-transport netty-transport-native-unix-common junit4 hamcrest-all; do
  packages+=:/usr/share/java/$jar.jar
done
packages=${packages#:}
# javac runs for seconds, too short for its own best code to pay.
compile=(javac -J-XX:TieredStopAtLevel=1 -proc:none)

"$here/generate.sh" "$folder/sources"
find "$folder/sources" -name '*.java' > "$folder/sources.txt"
find "$here/src" -name '*.java' > "$folder/own.txt"
"${compile[@]}" -nowarn -cp "$packages" -d "$folder/generated" "@$folder/sources.txt"
"${compile[@]}" -Xlint:all -Werror -cp "$folder/generated:$packages" -d "$folder/classes" "@$folder/own.txt"
echo "$folder/classes:$folder/generated:$packages" > "$folder/classpath"
