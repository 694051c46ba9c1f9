#!/bin/sh
# Everything that only a machine with a GPU can show, in one call: the doctor with its self-test, the tests marked gpu
# (none of them skipped), accuracies of the recipes, which must be those of the CPU, where GPUNN_DATA names MNIST, small
# experiments, and the benchmarks beside those peers that are installed. What failed comes last; JSON goes to
# benchmarks/results, that of experiments and benchmarks to the folder in OUT where it is set.
set -eu
# shellcheck source=scripts/setup.sh
. "$(dirname -- "$0")/setup.sh"
setup test
cd "$root"
failed=""
step() { # name, command: runs it, and goes on where it fails
    name=$1
    shift
    printf '\n== %s\n' "$name"
    "$@" || failed="$failed $name"
}
step doctor "$venv/bin/gpunn" doctor
step tests env GPUNN_REQUIRE_ALL=1 GPUNN_REQUIRE_GPU=1 "$venv/bin/python" -m pytest -q -m gpu "$@"
if [ -n "${GPUNN_DATA:-}" ]; then
    for recipe in mlp lenet lenet-bn; do
        step "accuracy of $recipe" "$venv/bin/python" benchmarks/accuracy.py "$recipe" mnist --device cuda
    done
fi
step questions "$venv/bin/python" benchmarks/gpu_questions.py ${OUT:+"$OUT"}
step benchmarks "$venv/bin/python" benchmarks/bench.py --device cuda --rounds 3 --out "${OUT:-benchmarks/results/cuda}"
if [ -n "$failed" ]; then printf "\nfailed:%s\n" "$failed"; exit 1; fi
printf "\nall passed\n"
