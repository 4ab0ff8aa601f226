#!/usr/bin/env bash
# Fetch the packages that benchmarks/gpu.sh needs on a machine that has PyTorch, torchvision, timm, pandas, scikit-learn,
# numba and matplotlib, but no network: pydantic with what it needs, and ruamel.yaml, for Python 3.11 to 3.13. Copy FOLDER
# to the machine.
#
#     benchmarks/fetch_wheels.sh FOLDER
set -euo pipefail
cd "$(dirname "$0")/.."
folder=${1:?missing folder for the wheels: benchmarks/fetch_wheels.sh FOLDER}
for version in 3.11 3.12 3.13; do
    python3 -m pip download --quiet --only-binary :all: --no-deps --dest "$folder" --constraint constraints.txt \
        --python-version "$version" --platform manylinux2014_x86_64 \
        pydantic pydantic-core annotated-types typing-inspection typing-extensions ruamel.yaml
done
