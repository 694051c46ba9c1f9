#!/bin/sh
# Run every check that needs a real GPU, all or by step; docs/gpu.md says what each step shows.
#
#   scripts/gpu-check.sh [--small] [STEP ...] [-- ARGUMENTS OF PYTEST]
#
# GPUNN_PYTHON          a Python with all packages: nothing is installed              (default: that of .venv)
# OUT                   folder of the JSON and of the log of each step                (default: benchmarks/results/gpu)
# GPUNN_DATA            folder of MNIST, for the accuracies of its recipes            (default: the digits only)
# GPUNN_SIMULATED_CUDA  1: use the CUDA of tests/simulated_cuda, small, to see that this script runs
set -eu
# shellcheck source=scripts/setup.sh
. "$(dirname -- "$0")/setup.sh"
cd "$root"
if [ -n "${GPUNN_PYTHON:-}" ]; then
    python=$GPUNN_PYTHON
else
    setup test
    python=$venv/bin/python
fi
if [ "${GPUNN_SIMULATED_CUDA:-}" = 1 ]; then
    PYTHONPATH=$root/tests/simulated_cuda/everywhere${PYTHONPATH:+:$PYTHONPATH}
    set -- --small "$@"
fi
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
exec "$python" benchmarks/gpu_check.py "$@"
