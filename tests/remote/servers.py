"""Servers of object stores on loopback: moto in this process, versitygw and fake-gcs-server built by Go."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engines.services import free_port, service
from tests.pipeline.store import s3_server

VERSITYGW = "github.com/versity/versitygw/cmd/versitygw@v1.8.0"
FAKE_GCS = "github.com/fsouza/fake-gcs-server@v1.56.1"


def built(package: str, variable: str, folder: Path) -> str:
    """Return the program that the environment names by `variable`, or else build it; the test is skipped without Go."""
    given = os.environ.get(variable)
    if given:
        return given
    name = package.partition("@")[0].rpartition("/")[2]
    if shutil.which("go") is None:
        pytest.skip(f"NOT TESTED: {name}. Name its binary by {variable}, or install Go, which builds it")
    subprocess.run(["go", "install", package], env={**os.environ, "GOBIN": str(folder)}, check=True)
    return str(folder / name)


@contextlib.contextmanager
def moto() -> Iterator[str]:
    """Run moto's S3."""
    with s3_server.serve() as server:
        yield server.url


@contextlib.contextmanager
def versitygw(folder: Path) -> Iterator[str]:
    """Run versitygw on a folder."""
    program = built(VERSITYGW, "FINECLIP_VERSITYGW", folder)
    (folder / "data").mkdir()
    (folder / "sidecar").mkdir()
    port = free_port()
    command = (program, "--access", "nobody", "--secret", "nothing", "--port", f"127.0.0.1:{port}", "--quiet")
    with service(*command, "posix", "--sidecar", folder / "sidecar", folder / "data", port=port, log=folder / "log"):
        yield f"http://127.0.0.1:{port}"


@contextlib.contextmanager
def fake_gcs(folder: Path) -> Iterator[str]:
    """Run fake-gcs-server, an emulator of Google Cloud Storage, in memory."""
    program = built(FAKE_GCS, "FINECLIP_FAKE_GCS", folder)
    port = free_port()
    command = (program, "-scheme", "http", "-host", "127.0.0.1", "-port", str(port), "-backend", "memory")
    with service(*command, port=port, log=folder / "log"):
        yield f"http://127.0.0.1:{port}"
