#!/bin/sh
# Build the site (README, docs, lecture, reference) into site/ from a bare checkout, and check it. To look at it:
# python -m http.server --directory site
set -eu
# shellcheck source=scripts/setup.sh
. "$(dirname -- "$0")/setup.sh"
setup site
cd "$root"
PYTHONPATH=scripts exec "$venv/bin/python" -m website "$@"
