"""A caption server that is gone in the middle of a job: the job waits, or starts its own again, and nothing is lost."""

import os
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from tests.builders import Outcome, read_rows, run
from tests.caption_server import MODEL, Answer, Asked, FakeCaptionServer
from tests.faults import jobs
from tests.random_captioners import random_qwen2_vl

pytestmark = pytest.mark.faults

_GONE_S = 20.0
_SCENES = int(os.environ.get("FINECLIP_SERVER_SCENES", "60"))
"""What a server of the job's own is killed three times in."""
_ROOT = Path(__file__).parents[2]


def test_a_server_gone_for_20_s_loses_nothing(tmp_path: Path) -> None:
    with FakeCaptionServer() as server:
        assert _annotate(tmp_path / "undisturbed", server).code == 0
    with FakeCaptionServer(_slowly) as server:
        half_way = threading.Thread(target=_take_away, args=(server,))
        half_way.start()
        outcome = _annotate(tmp_path / "disturbed", server)
        half_way.join()
    assert outcome.code == 0, outcome
    assert [_what(row) for row in read_rows(tmp_path / "disturbed")] == [
        _what(row) for row in read_rows(tmp_path / "undisturbed")
    ]


def test_a_server_gone_for_longer_than_one_waits_ends_the_job_which_goes_on_later(tmp_path: Path) -> None:
    with FakeCaptionServer() as server:
        assert _annotate(tmp_path / "undisturbed", server).code == 0
    with FakeCaptionServer(_slowly) as server:
        half_way = threading.Thread(target=_take_away, args=(server, 3.0))
        half_way.start()
        gone = _annotate(tmp_path / "disturbed", server, "--caption.patience-s", "0.5")
        half_way.join()
        assert gone.code == 7
        assert "the same command goes on" in " ".join(gone.err.split())
        assert _annotate(tmp_path / "disturbed", server, "--caption.patience-s", "0.5").code == 0
    assert [_what(row) for row in read_rows(tmp_path / "disturbed")] == [
        _what(row) for row in read_rows(tmp_path / "undisturbed")
    ]


@pytest.mark.parametrize("kind", ["fake", "transformers"])
def test_a_server_of_its_own_that_is_killed_three_times_loses_nothing(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "PATIENCE_S", jobs.PATIENCE_S + _SCENES)
    if kind == "transformers":
        pytest.importorskip("fastapi", reason="NOT TESTED: a managed `transformers serve`, which needs fastapi")
        random_qwen2_vl(tmp_path / "model")
        program, model = Path(sys.executable).with_name("transformers"), str(tmp_path / "model")
        serve = f"env HF_HUB_OFFLINE=1 {program} serve {model} --device cpu --port {{port}}"
    else:
        serve, model = f"env PYTHONPATH={_ROOT} {sys.executable} -m tests.caption_server {{port}} 0.02", MODEL
    backends = ("--proposer", "manual", "--captioner", "openai", "--caption.serve", serve, "--caption.model", model)
    answers = ("--caption.max-new-tokens", "6", "--caption.unfinished", "keep", "--caption.allow-constant", "true")
    flags = (*backends, *answers, "--max-dead", "1", "--shard-size", str(_SCENES // 6), "--caption.concurrency", "4")
    source, undisturbed, disturbed = f"scenes:{_SCENES}?split=test", tmp_path / "undisturbed", tmp_path / "disturbed"
    assert jobs.finish(jobs.launch("annotate", source, undisturbed, *flags)).code == 0
    process = jobs.launch("annotate", source, disturbed, *flags)
    for num_done in (1, 2, 4):
        jobs.wait_until(lambda done=num_done: len([*disturbed.glob("train-*.json")]) >= done, process)  # type: ignore[misc]
        _server_of(process.pid).kill()
    ended = jobs.finish(process)
    assert ended.code == 0, ended.text
    assert "started again 3 times" in " ".join(ended.text.split())
    assert [_what(row) for row in read_rows(disturbed)] == [_what(row) for row in read_rows(undisturbed)]


def _server_of(driver: int) -> psutil.Process:
    """The server that the driver's supervisor has started."""
    (supervisor,) = [
        child for child in psutil.Process(driver).children() if "supervise.py" in " ".join(child.cmdline())
    ]
    (server,) = supervisor.children()
    return server


def _slowly(asked: Asked) -> Answer | None:
    """Take long enough over each crop that the server goes away in the middle of some."""
    time.sleep(0.02)
    return None


def _take_away(server: FakeCaptionServer, seconds: float = _GONE_S) -> None:
    while len(server.asked) < 30:
        time.sleep(0.01)
    server.stop()
    time.sleep(seconds)
    server.start()


def _annotate(output: Path, server: FakeCaptionServer, *more: str) -> Outcome:
    return run(
        *("annotate", "scenes:40?split=test", output, "--proposer", "manual", "--captioner", "openai"),
        *("--caption.url", server.url, "--caption.concurrency", "4", "--max-dead", "0"),
        *more,
    )


def _what(row: dict[str, object]) -> tuple[object, ...]:
    return tuple(row[name] for name in ("key", "region_id", "status", "reason", "caption"))
