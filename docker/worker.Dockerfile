# The pipeline's worker and driver: Beam's SDK harness (Dataflow, Flink, Spark), a Ray worker, or `fineclip annotate`.
#
#   docker build -f docker/worker.Dockerfile -t fineclip-worker .                                          # CPU
#   docker build -f docker/worker.Dockerfile --build-arg BASE=nvidia/cuda:13.0.1-runtime-ubuntu24.04 ...   # GPU: untried
#   docker/test.sh                                # builds it without a registry of images, and runs a job in it
#
# Weights are not inside: mount them (`-v /weights:/weights:ro`), or a Hugging Face cache at $HF_HOME.
# No AGPL-3.0 package is inside; YOLOv9 by Ultralytics needs an image of your own that adds `[ultralytics]`.
#
# BASE: Debian or Ubuntu. BOOT: an image with Beam's boot program in /opt/apache/beam, which only Beam's engines run.
ARG BASE=python:3.11.14-slim-bookworm
ARG BOOT=apache/beam_python3.11_sdk:2.77.0
FROM ${BOOT} AS boot

FROM ${BASE}
# Of setup.py. PIP_OPTIONS: where a build finds packages, such as `--find-links /wheels`.
ARG EXTRAS=pipeline,ray,dataflow
ARG PIP_OPTIONS=""
ENV PIP_NO_CACHE_DIR=1 PYTHONUNBUFFERED=1
# A CUDA base has no Python, the slim one has; both get what OpenCV's headless build needs.
RUN export DEBIAN_FRONTEND=noninteractive \
    && apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates libglib2.0-0 \
    && (python3 -c 'import sys, ensurepip; assert sys.version_info >= (3, 11)' \
        || apt-get install -y --no-install-recommends python3 python3-venv) \
    && rm -rf /var/lib/apt/lists/*

RUN python3 -m venv /opt/fineclip
ENV PATH=/opt/fineclip/bin:$PATH
COPY setup.py pyproject.toml README.md LICENSE fineclip.py /src/
COPY schemas /src/schemas
COPY pipeline /src/pipeline
COPY trainer /src/trainer
RUN pip install ${PIP_OPTIONS} "/src[${EXTRAS}]" s3fs gcsfs && rm -rf /src

# Beam starts workers by its boot program; in this image it must use this environment, not make one of its own.
COPY --from=boot /opt/apache/beam /opt/apache/beam
ENV RUN_PYTHON_SDK_IN_DEFAULT_ENVIRONMENT=1 HF_HOME=/cache/huggingface XDG_CACHE_HOME=/cache

RUN useradd --create-home --uid 1000 fineclip && mkdir -p /cache /data && chown fineclip /cache /data
USER fineclip
WORKDIR /data
HEALTHCHECK --interval=60s --timeout=20s CMD ["fineclip", "--version"]
# Beam overrides this with its own boot arguments.
ENTRYPOINT ["fineclip"]
CMD ["--help"]
