"""Packaging of FineCLIP Regions: three import packages and one console command.

Extras keep what a user does not need out of the environment. `[pipeline]`, `[trainer]` and `[viewer]` hold
permissively licensed packages only; a package whose licence restricts users gets an extra of its own.

Lower bounds are the lowest versions that the tests pass with (`make test-oldest`), so that a cluster's image may bring
its own torch. Our own installation keeps to the tested set of constraints.txt.
"""

from pathlib import Path

from setuptools import find_packages, setup

SCHEMAS = ["msgspec>=0.22", "numpy>=2", "pyarrow>=21", "fsspec[http]>=2025.5"]
# pillow (AVIF) and zstandard (.tar.zst): plans name sources, so `status`, `doctor` and `view` import the readers too
COMMAND = ["jsonargparse[signatures]>=4.49", "pillow>=11.3", "rich>=14", "zstandard>=0.23"]
# Before 2.10, weights_only could be made to run code. Each torchvision loads with one torch alone, and pins it.
TORCH = ["torch>=2.10", "torchvision>=0.25", "transformers>=5.9"]
PIPELINE = [
    "apache-beam==2.77.0",
    "filelock>=3.15",
    "platformdirs>=4",
    "prometheus-client>=0.22",  # --metrics-port; Apache-2.0, without dependencies
    "pycocotools>=2.0.8",
    "opencv-contrib-python-headless>=4.10.0.84",  # the first that loads with NumPy 2; img_hash: audit's near-duplicates
    *TORCH,
    "scipy>=1.13",  # train-mini's detector: transformers matches boxes to objects by it
    "open_clip_torch>=3.3",
]
VIEWER = ["duckdb>=1.4", "starlette>=0.46", "uvicorn>=0.34"]
TRAINER = [
    "accelerate>=1.10",
    "open_clip_torch>=3.3",
    "pycocotools>=2.0.8",  # `detect evaluate`: COCO's own AP50; BSD
    "safetensors>=0.6",
    "tensorboard>=2.20",
    "timm>=1.0.22",
    *TORCH,
    "typing_extensions>=4.10",  # `override`, which is in typing from Python 3.12
    "webdataset>=1.0",  # `train --stream`: shuffles shards and samples, reads tars; BSD-3-Clause
]
OPENAI = ["openai>=3"]
"""The client of `--captioner openai`, which speaks to any OpenAI-compatible server."""
ULTRALYTICS = ["ultralytics-opencv-headless>=8.4"]
"""AGPL-3.0. Imported by `--propose.engine ultralytics` alone."""
SEGMENT_ANYTHING = ["segment-anything>=1.0"]
"""`--propose.engine segment-anything`: Meta's own code, Apache-2.0, pure Python on torch and torchvision."""
DATAFLOW = ["apache-beam[gcp]==2.77.0"]
"""`-- --runner=DataflowRunner`: Google's clients, some 340 MB."""
RAY = ["ray>=2.60"]
"""`--engine ray`: without its dashboard, which `ray job submit` needs (`pip install 'ray[default]'`)."""
DEV = [
    "axe-playwright-python>=0.1.8",  # carries axe-core, the rules of accessibility that the browser tests hold
    "datasets>=4",
    "fastapi>=0.115",  # what `transformers serve` wants, a real server to test against
    "hypothesis>=6.100",
    "moto[server]>=5.1",  # an S3 to test against, which knows conditional puts
    "mypy>=1.15",
    "matplotlib>=3.10.7",  # this and the next two: what Ultralytics imports; see the Makefile
    "polars>=1",
    "psutil>=6",
    "playwright>=1.50",
    "pre-commit>=4",
    "pytest>=9",  # tests give a fixture other parameters than its own
    "pytest-timeout>=2.3",
    "pytest-xdist>=3.8",
    "python-multipart>=0.0.20",  # as fastapi
    "ruff>=0.12",
    "s3fs>=2025.5",
    "setuptools>=70.1",  # tests build a wheel without a network; the first that does so on its own
    "torchmetrics>=1.6",  # metrics of other authors, which ours are compared with
    "types-PyYAML>=6",
    "wids>=0.1.11",
]

setup(
    name="fineclip-regions",
    version="0.1.0",
    description="Turns image-text data into region-text data, and trains FineCLIP on it",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    # Tested on 3.11, 3.12 and 3.13; 3.14 has wheels of all dependencies, and is untried
    classifiers=[f"Programming Language :: Python :: 3.{minor}" for minor in (11, 12, 13, 14)],
    packages=find_packages(include=["schemas*", "pipeline*", "trainer*"]),
    py_modules=["fineclip"],
    package_data={
        "schemas": ["*.json"],
        "pipeline": ["caption/concepts.txt", "golden/photographs/*", "viewer/assets/*", "models/checkpoints/*/*"],
        "trainer": ["model/model_configs/*"],
    },
    install_requires=SCHEMAS + COMMAND,
    extras_require={
        "pipeline": PIPELINE,
        "trainer": TRAINER,
        "openai": OPENAI,
        "ultralytics": ULTRALYTICS,
        "ray": RAY,
        "segment-anything": SEGMENT_ANYTHING,
        "dataflow": DATAFLOW,
        "viewer": VIEWER,
        "dev": DEV + OPENAI + RAY + SEGMENT_ANYTHING,
    },
    entry_points={"console_scripts": ["fineclip=fineclip:run"]},
)
