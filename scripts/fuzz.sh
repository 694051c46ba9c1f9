#!/bin/sh
# Fuzzes what reads files, from a bare checkout: makes .venv, installs what is needed, runs atheris.
#   scripts/fuzz.sh [TARGET...] [--runs N] [--out FILE.json]      scripts/fuzz.sh --help
set -eu
# shellcheck source=scripts/setup.sh
. "$(dirname -- "$0")/setup.sh"
setup fuzz
cd "$root"
export PYTHONPATH="$root/tests" OPENBLAS_NUM_THREADS=1
exec "$venv/bin/python" -m fuzz "$@"
