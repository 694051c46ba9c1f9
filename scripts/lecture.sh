#!/bin/sh
# Executes the chapters of the lecture from a bare checkout: makes .venv, installs what is needed, runs lecture/run.py.
#   scripts/lecture.sh [CHAPTER...] [--check] [--notebooks DIR [--without-solutions]] [--markdown DIR]
set -eu
# shellcheck source=scripts/setup.sh
. "$(dirname -- "$0")/setup.sh"
setup lecture
exec "$venv/bin/python" "$root/lecture/run.py" "$@"
