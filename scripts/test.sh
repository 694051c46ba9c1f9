#!/bin/sh
# Run the tests from a bare checkout: make .venv, install gpunn and the test tools, run pytest on all cores with the arguments
# given. Paths are relative to the repository's root; -n 0 runs one process, as --pdb and -s need.
set -eu
# shellcheck source=scripts/setup.sh
. "$(dirname -- "$0")/setup.sh"
setup test
cd "$root"
# Without arguments, take less than five minutes on two cores: leave the tests of the tests, the benchmarks, the set-up for
# CUDA, and the memory limits to CI, which gives arguments.
[ $# -gt 0 ] || set -- --ignore=tests/project/test_skipping.py --ignore=tests/benchmarks \
    --ignore=tests/scripts/test_setup_cuda.py --ignore=tests/backend/test_limits.py
exec "$venv/bin/python" -m pytest -n auto --dist worksteal "$@"
