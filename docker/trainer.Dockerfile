# The trainer.
#
#   docker build -f docker/trainer.Dockerfile -t fineclip-trainer .                                        # CPU
#   docker/test.sh                                        # builds it without a registry of images, and trains a step
#   docker build -f docker/trainer.Dockerfile --build-arg BASE=nvidia/cuda:13.0.1-runtime-ubuntu24.04 ...  # GPU: untried
#   docker run --gpus all --ipc=host -v /data:/data fineclip-trainer \
#       torchrun --nproc-per-node 8 /opt/fineclip/bin/fineclip train /data/shards --recipe vitb16 --out /data/run
ARG BASE=python:3.11.14-slim-bookworm
FROM ${BASE}
# PIP_OPTIONS: where a build finds packages, such as `--find-links /wheels`.
ARG PIP_OPTIONS=""
ENV PIP_NO_CACHE_DIR=1 PYTHONUNBUFFERED=1
RUN export DEBIAN_FRONTEND=noninteractive \
    && apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && (python3 -c 'import sys, ensurepip; assert sys.version_info >= (3, 11)' \
        || apt-get install -y --no-install-recommends python3 python3-venv) \
    && rm -rf /var/lib/apt/lists/*

RUN python3 -m venv /opt/fineclip
ENV PATH=/opt/fineclip/bin:$PATH
COPY setup.py pyproject.toml README.md LICENSE fineclip.py /src/
COPY schemas /src/schemas
COPY pipeline /src/pipeline
COPY trainer /src/trainer
RUN pip install ${PIP_OPTIONS} "/src[trainer]" s3fs gcsfs && rm -rf /src

ENV HF_HOME=/cache/huggingface XDG_CACHE_HOME=/cache
RUN useradd --create-home --uid 1000 fineclip && mkdir -p /cache /data && chown fineclip /cache /data
USER fineclip
WORKDIR /data
HEALTHCHECK --interval=60s --timeout=20s CMD ["fineclip", "--version"]
CMD ["fineclip", "train", "--help"]
