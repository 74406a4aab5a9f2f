"""Packaging of FineCLIP Regions: three import packages and one console command.

Extras keep what a user does not need out of the environment. `[pipeline]`, `[trainer]` and `[viewer]` hold
permissively licensed packages only; a package whose licence restricts users gets an extra of its own.
"""

from pathlib import Path

from setuptools import find_packages, setup

SCHEMAS = ["msgspec>=0.20", "numpy>=2", "pyarrow>=20", "fsspec[http]>=2025.5"]
COMMAND = ["jsonargparse[signatures]>=4.40", "rich>=14"]
PIPELINE = ["apache-beam==2.77.0", "pillow>=11", "opencv-contrib-python-headless>=4.10"]
DEV = [
    "datasets>=4",
    "hypothesis>=6.100",
    "mypy>=1.15",
    "pre-commit>=4",
    "pytest>=8.3",
    "pytest-timeout>=2.3",
    "ruff>=0.12",
    "webdataset>=1.0",
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
    packages=find_packages(include=["schemas*", "pipeline*", "trainer*"]),
    py_modules=["fineclip"],
    package_data={"schemas": ["*.json"], "pipeline": ["photographs/*"]},
    install_requires=SCHEMAS + COMMAND,
    extras_require={"pipeline": PIPELINE, "dev": DEV},
    entry_points={"console_scripts": ["fineclip=fineclip:main"]},
)
