"""A caption server that is gone for 20 s in the middle of a job: the job waits for it, and nothing is lost."""

import threading
import time
from pathlib import Path

import pytest

from tests.builders import Outcome, read_rows, run
from tests.caption_server import Answer, Asked, FakeCaptionServer

pytestmark = pytest.mark.faults

_GONE_S = 20.0


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
