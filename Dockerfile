# NOT BUILT YET: written without a Docker daemon. Pin the base image by its digest at the first build.
#
#   docker build --tag chest-xray .
#   docker run --rm --gpus all chest-xray                       make repro, on a GPU; without --gpus, on the CPU
#   docker run --rm --network none --volume "$PWD/data:/project/data:ro" --volume "$PWD/images:/images:ro" \
#       chest-xray python -m tools.predict /images              predict offline, with the networks in data/
#
# PyTorch's wheels bring CUDA and cuDNN along, so that the base image needs neither; the host has the NVIDIA driver and
# the NVIDIA Container Toolkit.
FROM python:3.11-slim-bookworm

# gcc and libc6-dev: for the parameter compile.
RUN apt-get update && apt-get install --yes --no-install-recommends gcc git libc6-dev make && rm -rf /var/lib/apt/lists/*

ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
WORKDIR /project

# First the packages, in a layer that only a change of the pins rebuilds.
COPY Makefile constraints.txt requirements.txt requirements-predict.txt ./
COPY tools/__init__.py tools/
COPY tools/doctor/ tools/doctor/
RUN make .venv/stages && .venv/bin/python -m pip install --no-cache-dir --requirement requirements-predict.txt

COPY . .
RUN touch .venv/stages && git config --global --add safe.directory /project
ENV PATH=/project/.venv/bin:$PATH
CMD ["make", "repro"]
