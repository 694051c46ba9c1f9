#!/bin/sh
# Builds the site into site/ from a bare checkout, and checks it: README, docs, lecture, reference. To look at it:
# python -m http.server --directory site
set -eu
# shellcheck source=scripts/setup.sh
. "$(dirname -- "$0")/setup.sh"
setup site
cd "$root"
PYTHONPATH=scripts exec "$venv/bin/python" -m website "$@"
