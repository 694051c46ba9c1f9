#!/bin/sh
# Train from a bare checkout: make .venv, install gpunn, run `gpunn train` with the arguments given.
set -eu
# shellcheck source=scripts/setup.sh
. "$(dirname -- "$0")/setup.sh"
setup
exec "$venv/bin/gpunn" train "$@"
