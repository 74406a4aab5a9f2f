"""The log of a run keeps every failure at a unit."""

from pathlib import Path

from pipeline.run.log import Ending, RunLog
from pipeline.store.storage import open_storage


def test_a_second_failure_at_a_unit_does_not_replace_the_first(tmp_path: Path) -> None:
    log = RunLog(open_storage(str(tmp_path)), "run")
    for message in ("the first", "the second"):
        log.write(3, Ending.FAILED, stage="annotate", message=message)
    assert [event.message for event in log.undone()] == ["the first", "the second"]
