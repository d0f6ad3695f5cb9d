#!/usr/bin/env bash
# proto.sh PYTHON: regenerate air/pb from proto/air/pb, with a generator in an environment of its own.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=$1 generator=.venv-proto

# Its protobuf must not be newer than the oldest runtime that pyproject.toml allows, so it stays apart.
[ -x "$generator/bin/pip" ] || "$python" -m venv --clear "$generator"
"$generator/bin/pip" install --quiet --disable-pip-version-check 'grpcio-tools==1.76.0' 'setuptools<81'
"$generator/bin/python" -m grpc_tools.protoc -Iproto --python_out=. --pyi_out=. proto/air/pb/*.proto
sed -i 's/^"""Generated protocol buffer code."""$/"""Generated protocol buffer code. (core)"""/' air/pb/*_pb2.py
sed -i 's/, _Mapping\]/, _Mapping[str, object]]/g' air/pb/*_pb2.pyi
