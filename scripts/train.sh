#!/bin/sh
# Trains from a bare checkout: makes .venv, installs what is needed, runs `gpunn train` with the arguments given.
set -eu
# shellcheck source=scripts/setup.sh
. "$(dirname -- "$0")/setup.sh"
setup
exec "$venv/bin/gpunn" train "$@"
