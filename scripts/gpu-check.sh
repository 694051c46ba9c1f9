#!/bin/sh
# Everything that only a machine with a GPU can show, in one call or in parts; docs/gpu.md says what each step shows.
#
#   scripts/gpu-check.sh [--small] [STEP ...] [-- ARGUMENTS OF PYTEST]
#
# GPUNN_PYTHON          a Python that has everything already: nothing is installed    (default: that of .venv)
# OUT                   the folder of the JSON and of each step's log                 (default: benchmarks/results/gpu)
# GPUNN_DATA            the folder of MNIST, for the accuracies of its recipes        (default: those of the digits only)
# GPUNN_SIMULATED_CUDA  1 for the CUDA of tests/simulated_cuda, which is no GPU: small, to see that this script runs
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
