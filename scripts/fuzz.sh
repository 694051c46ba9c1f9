#!/bin/sh
# Fuzz the readers of files from a bare checkout: make .venv, install gpunn and atheris, run the targets.
#   scripts/fuzz.sh [TARGET...] [--runs N] [--out FILE.json]      scripts/fuzz.sh --help
set -eu
# shellcheck source=scripts/setup.sh
. "$(dirname -- "$0")/setup.sh"
setup fuzz
cd "$root"
export PYTHONPATH="$root/tests" OPENBLAS_NUM_THREADS=1
exec "$venv/bin/python" -m fuzz "$@"
