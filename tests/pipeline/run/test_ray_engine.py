"""Units over Ray: the same bytes, dead workers, and options that are told of at once."""

import os
import socket
from collections import Counter
from pathlib import Path

import psutil
import pytest
from ray.exceptions import RayTaskError

from pipeline.errors import EngineError, InterruptedRunError
from pipeline.run import job, ray_engine
from pipeline.run.ray_engine import _count_death, check_options
from pipeline.settings import RunSettings
from tests.builders import configuration, digests, members, write_tar, write_tars


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--adress", "x"], r"unrecognized arguments: --adress x; after -- it takes address"),
        (["--num-gpus", "0.5"], "--num-gpus must be whole"),
        (["--address", "nowhere"], "--address nowhere: give HOST:PORT"),
        (["--address", "ray://127.0.0.1:10001"], "give HOST:PORT"),
    ],
)
def test_unusable_options_are_a_sentence(options: list[str], message: str) -> None:
    with pytest.raises(EngineError, match=message):
        check_options(options, RunSettings())


def test_an_address_at_which_nothing_listens_is_told_at_once() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(EngineError, match=f"--address {address}: nothing answers there"):
            check_options(["--address", address], RunSettings())


def test_what_a_worker_raised_is_told_by_its_first_line_with_its_kind() -> None:
    """Not by the last line of Ray's text, which of an error of several lines is its end."""
    raised = ValueError("boxes do not match\n  expected: 3\n  found: 2")
    error = RayTaskError("work", "Traceback: ...", raised).as_instanceof_cause()
    with pytest.raises(InterruptedRunError, match=r"^a worker failed at unit 7: ValueError: boxes do not match$"):
        _count_death(7, error, Counter())
    with pytest.raises(InterruptedRunError, match=r"^a worker failed at its start: ValueError: boxes do not match$"):
        _count_death(None, error, Counter())


@pytest.fixture
def tars(tmp_path: Path) -> Path:
    """Five tars, for five shards."""
    return write_tars(tmp_path / "tars", num_tars=5, num_images=6)


def actors() -> list[int]:
    """The processes in which an actor of ours is at work."""
    running = psutil.process_iter(["cmdline"])  # None of a process that has just ended
    return [process.pid for process in running if "ray::_Actor" in " ".join(process.info["cmdline"] or [])]


@pytest.mark.engines
@pytest.mark.parametrize("two_pools", [False, True])
def test_ray_makes_the_same_bytes(tars: Path, tmp_path: Path, two_pools: bool) -> None:
    run = RunSettings(engine="ray", workers=2, two_pools=two_pools)
    result = job.annotate([str(tars)], str(tmp_path / "ray"), configuration=configuration(), run=run)
    assert result.totals.images.ok == 30
    job.annotate([str(tars)], str(tmp_path / "beam"), configuration=configuration())
    assert digests(tmp_path / "ray") == digests(tmp_path / "beam")
    assert actors() == []


@pytest.fixture
def deadly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tar whose opening kills a worker of Ray's, as often as the file `lives` beside it has letters."""
    site = tmp_path / "site"
    site.mkdir()
    lives = tmp_path / "lives"
    (site / "sitecustomize.py").write_text(
        "import os, signal, sys\n"
        "def look(name, arguments):\n"
        "    if name == 'open' and str(arguments[0]).endswith('deadly.tar'):\n"
        f"        left = os.path.getsize({str(lives)!r})\n"
        "        if left and b'ray::' in open('/proc/self/cmdline', 'rb').read():\n"
        f"            os.truncate({str(lives)!r}, left - 1)\n"
        "            os.kill(os.getpid(), signal.SIGKILL)\n"
        "sys.addaudithook(look)\n"
    )
    root = Path(__file__).parents[3]
    monkeypatch.setenv("PYTHONPATH", f"{root}{os.pathsep}{site}")
    return write_tar(tmp_path / "tars" / "deadly.tar", (members(f"k{number}") for number in range(3)))


@pytest.mark.engines
def test_a_unit_of_a_killed_worker_is_done_by_another(deadly: Path, tmp_path: Path) -> None:
    (tmp_path / "lives").write_text("xx")
    write_tars(deadly.parent, num_tars=2, num_images=6)
    run = RunSettings(engine="ray", workers=2)
    job.annotate([str(deadly.parent)], str(tmp_path / "ray"), configuration=configuration(), run=run)
    assert (tmp_path / "lives").read_text() == "", "two workers were killed"
    job.annotate([str(deadly.parent)], str(tmp_path / "beam"), configuration=configuration())
    assert digests(tmp_path / "ray") == digests(tmp_path / "beam")


@pytest.mark.engines
def test_a_unit_that_kills_its_workers_ends_the_job(deadly: Path, tmp_path: Path) -> None:
    (tmp_path / "lives").write_text("xxxxx")
    with pytest.raises(InterruptedRunError, match=r"unit 0 killed 3 workers .*probably out of memory"):
        job.annotate([str(deadly)], str(tmp_path / "out"), configuration=configuration(), run=RunSettings(engine="ray"))
    assert ray_engine.ray.is_initialized() is False


@pytest.mark.engines
def test_what_a_worker_raises_ends_the_job_with_its_cause(
    tars: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exception is no death: other workers are not spent on it."""
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(
        "import sys\n"
        "def look(name, arguments):\n"
        "    if name == 'open' and str(arguments[0]).endswith('00001.tar'):\n"
        "        raise ZeroDivisionError('a bug of ours')\n"
        "sys.addaudithook(look)\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{Path(__file__).parents[3]}{os.pathsep}{site}")
    with pytest.raises(InterruptedRunError, match="a worker failed at unit 1: ZeroDivisionError: a bug of ours"):
        job.annotate([str(tars)], str(tmp_path / "out"), configuration=configuration(), run=RunSettings(engine="ray"))
    assert actors() == []


@pytest.mark.engines
def test_a_worker_that_does_not_see_the_output_says_so(
    tars: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "token_file", lambda run_id: f"_run/{run_id}.elsewhere")
    with pytest.raises(InterruptedRunError, match=r"a worker could not be started: host .* does not see the driver's"):
        job.annotate([str(tars)], str(tmp_path / "out"), configuration=configuration(), run=RunSettings(engine="ray"))
