#!/bin/sh
# Execute chapters of the lecture from a bare checkout: make .venv, install gpunn and Jupyter, run lecture/run.py.
#   scripts/lecture.sh [CHAPTER...] [--check] [--notebooks DIR [--without-solutions]] [--markdown DIR]
set -eu
# shellcheck source=scripts/setup.sh
. "$(dirname -- "$0")/setup.sh"
setup lecture
exec "$venv/bin/python" "$root/lecture/run.py" "$@"
