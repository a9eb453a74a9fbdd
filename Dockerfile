# The command `uiat` with every extra, on the CPU or on NVIDIA GPUs:
#
#   docker build -t uiat:cpu --build-arg TORCH_INDEX=ADDRESS .    ADDRESS: what pytorch.org's selector shows for "Pip, CPU"
#   docker build -t uiat:cuda .                                   pip's default torch for Linux, which brings CUDA with it
#
#   docker run --rm -v "$PWD:/work" uiat:cpu train digits-uiat
#   docker run --rm --gpus all -v "$PWD:/work" uiat:cuda train cifar10-resnet18-uiat --data.root data
#
# Runs are written to the folder that is mounted at /work. `--user "$(id -u):$(id -g)"` makes them yours, and
# `--shm-size 2g` is for image folders that are read by several processes.
FROM python:3.13-slim

ARG TORCH=2.14.1
ARG TORCH_INDEX=""
ENV PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore PYTHONUNBUFFERED=1 HOME=/tmp

# g++ compiles the training step on a CPU (`compute.compile`).
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/*

# Torch before the source, so that a change of the source does not fetch it again.
# pip takes a torchvision that accepts this torch: both have to come from one index.
# hadolint ignore=DL3013
RUN pip install ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} "torch==${TORCH}" torchvision

WORKDIR /src
COPY pyproject.toml README.md PAPER.md LICENSE ./
COPY src ./src
# hadolint ignore=DL3013
RUN pip install ".[all]" && useradd --uid 1000 --create-home uiat
USER 1000
WORKDIR /work
ENTRYPOINT ["uiat"]
CMD ["--help"]
