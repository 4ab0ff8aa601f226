#!/usr/bin/env bash
# Run all benchmarks that need a GPU, in one call of less than 9 minutes on an H100. It needs no repository of DVC. On a
# machine that lacks pydantic or ruamel.yaml and has no network, WHEELS is the folder that benchmarks/fetch_wheels.sh has
# filled. Everything is printed at once and kept in FOLDER/results.txt. Each part has a time limit; what it has printed
# until then is kept. --toy tests all of it with tiny images, on a CPU in minutes.
#
#     benchmarks/gpu.sh FOLDER [--toy] [WHEELS]
set -uo pipefail
cd "$(dirname "$0")/.."
folder=${1:?missing folder for data and results: benchmarks/gpu.sh FOLDER [--toy] [WHEELS]}
shift
toy= wheels=
for argument; do
    case $argument in --toy) toy=--toy ;; *) wheels=$argument ;; esac
done
mkdir -p "$folder"
folder=$(realpath "$folder")
export PYTHONUNBUFFERED=1 PYTHONPATH="$folder/packages:$PWD"
exec > >(tee "$folder/results.txt") 2>&1

# Run a part; end it when its seconds are over, and go on with the next one. A CPU gets six times as long.
failed=0
factor=$([ -n "$toy" ] && echo 6 || echo 1)
part() {
    local seconds=$1
    shift
    echo "== $* (at $SECONDS s)"
    timeout --kill-after 5 "$((seconds * factor))" "$@" || { echo "!! exit code $?: $*"; failed=1; }
}

if ! python3 -c "import pydantic, ruamel.yaml" 2> /dev/null; then
    part 20 python3 -m pip install --quiet --no-index --find-links "${wheels:?packages are missing: give WHEELS}" \
        --no-deps --target "$folder/packages" pydantic pydantic-core annotated-types typing-inspection typing-extensions \
        ruamel.yaml
fi
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader || echo "no nvidia-smi"
timeout 60 python3 -m benchmarks.classic "$folder/classic" --only-data $toy & # 3 GB, beside the next part
data=$!
part 75 python3 -m benchmarks.training --rounds 2 --no-compile --profile $toy
wait "$data" || { echo "!! the data could not be written"; failed=1; }
part 235 python3 -m benchmarks.classic "$folder/classic" $toy
model=$([ -n "$toy" ] && echo test_resnet || echo efficientnet_b3)
part 50 python3 -m benchmarks.input --rounds 2 --no-loader --only "$model" $toy
# Compilation comes last, because it may take longer than what remains; the speed is known before the bits.
part $((535 - SECONDS / factor)) python3 -m benchmarks.classic "$folder/classic" --compile --epochs 2 $toy
echo "== finished at $SECONDS s"
exit $failed
