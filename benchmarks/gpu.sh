#!/usr/bin/env bash
# Run all benchmarks that need a GPU, in less than 9 minutes on an H100: reproducibility, settings of the training step
# with a profile, the cost of the input, and the time of an epoch of the classic recipe. Needs the packages of
# requirements.txt, and no repository of DVC. FOLDER keeps data and checkpoints; the next call resumes the classic
# training. --toy tests all of it on a CPU.
#
#     benchmarks/gpu.sh FOLDER [--toy] | tee gpu.txt
set -euo pipefail
cd "$(dirname "$0")/.."
folder=${1:?missing folder for data and checkpoints: benchmarks/gpu.sh FOLDER [--toy]}
toy=${2:-}
mkdir -p "$folder"
folder=$(realpath "$folder")

# Run a benchmark with a time limit; if it fails, continue with the next one. A CPU gets four times as long.
failed=0
check() {
    local seconds=$1; shift
    echo "== $* (at ${SECONDS} s)"
    timeout "$((seconds * factor))" "$@" 2>&1 || { echo "!! exit code $?"; failed=1; }
}

factor=$([ -n "$toy" ] && echo 4 || echo 1)
minutes=$([ -n "$toy" ] && echo 0.5 || echo 2.6)
check 60 python -m benchmarks.classic "$folder/twice" --twice $toy
check 70 python -m benchmarks.training --rounds 3 --no-compile --profile $toy
check 90 python -m benchmarks.input --rounds 3 $toy
check 190 python -m benchmarks.classic "$folder/classic" --minutes "$minutes" $toy
# Compilation comes last, because it may exceed the remaining time.
check $((530 - SECONDS / factor)) python -m benchmarks.training --rounds 2 $toy
echo "== finished at ${SECONDS} s"
exit $failed
