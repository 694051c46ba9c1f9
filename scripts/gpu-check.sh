#!/bin/sh
# What only a machine with a GPU can show: the doctor's self-test, and the tests marked gpu, none of them skipped.
set -eu
# shellcheck source=scripts/setup.sh
. "$(dirname -- "$0")/setup.sh"
setup test
cd "$root"
"$venv/bin/gpunn" doctor
export GPUNN_REQUIRE_ALL=1 GPUNN_REQUIRE_GPU=1
exec "$venv/bin/python" -m pytest -m gpu "$@"
