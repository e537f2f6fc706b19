#!/usr/bin/env bash
# Runs server_test.py in the virtual environment with the generated modules.
set -euo pipefail
# The environment is found through the place of its interpreter, not of a link to it.
python="$(readlink ../trimtab_python/bin/python3)"
export PYTHONPATH="$PWD/proto/python" PYTHONDONTWRITEBYTECODE=1
exec "$python" tests/deploy/server_test.py
