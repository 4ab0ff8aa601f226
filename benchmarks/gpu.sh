#!/usr/bin/env bash
# Every check that needs a GPU, in one call of under 9 minutes on an H100: settings of the network's arithmetic with a
# profile, what input costs, whether bytes repeat, and the classic run for as long as is left. `--toy` tries all of it
# on a CPU. Needs what the stage train needs, and no dvc. FOLDER keeps data and checkpoints: call again, and the classic
# run goes on.
#
#     benchmarks/gpu.sh FOLDER [--toy] | tee gpu.txt
set -euo pipefail
cd "$(dirname "$0")/.."
folder=${1:?where to keep data and checkpoints: benchmarks/gpu.sh FOLDER [--toy]}
toy=${2:-}
mkdir -p "$folder"
folder=$(realpath "$folder")

# A check that fails or takes too long must not cost the others.
failed=0
check() {
    local seconds=$1; shift
    echo "== $* (at ${SECONDS} s)"
    timeout "$seconds" "$@" 2>&1 || { echo "!! ended with $?"; failed=1; }
}

minutes=$([ -n "$toy" ] && echo 0.5 || echo 2.6)
check 60 python -m benchmarks.classic "$folder/twice" --twice $toy
check 70 python -m benchmarks.training --rounds 3 --no-compile --profile $toy
check 90 python -m benchmarks.input --rounds 3 $toy
check 190 python -m benchmarks.classic "$folder/classic" --minutes "$minutes" $toy
# Last, since compiling may take longer than is left.
check $((530 - SECONDS)) python -m benchmarks.training --rounds 2 $toy
echo "== all done at ${SECONDS} s"
exit $failed
