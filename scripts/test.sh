#!/bin/sh
# Runs the tests from a bare checkout: makes .venv, installs what is needed, runs pytest on all cores with the arguments
# given. Paths among them are seen from the repository's root; -n 0 is for one process, as --pdb and -s want it.
set -eu
# shellcheck source=scripts/setup.sh
. "$(dirname -- "$0")/setup.sh"
setup test
cd "$root"
# Without arguments in less than five minutes on two cores: what tests the tests, the benchmarks, the set-up for CUDA, and
# memory in processes of their own is for CI, which gives some.
[ $# -gt 0 ] || set -- --ignore=tests/project/test_skipping.py --ignore=tests/benchmarks \
    --ignore=tests/scripts/test_setup_cuda.py --ignore=tests/backend/test_limits.py
exec "$venv/bin/python" -m pytest -n auto --dist worksteal "$@"
