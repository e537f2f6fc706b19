#!/usr/bin/env bash
# run.sh PROGRAM.py ARGUMENT...: runs a benchmark with gRPC's Python packages and the generated modules.
set -euo pipefail
# The environment is found through the place of its interpreter, not of a link to it.
python="$(readlink ../trimtab_python/bin/python3)"
export PYTHONPATH="$PWD/proto/python:$PWD/tests/bench" PYTHONDONTWRITEBYTECODE=1
program="$1"; shift
exec "$python" "tests/bench/$program" "$@"
