#!/bin/sh
# Runs the tests from a bare checkout: makes .venv, installs what is needed, runs pytest with the arguments given.
# Paths among them are seen from the repository's root.
set -eu
# shellcheck source=scripts/setup.sh
. "$(dirname -- "$0")/setup.sh"
setup test
cd "$root"
exec "$venv/bin/python" -m pytest "$@"
