from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.caption.rule import RuleConfig
from pipeline.caption.view import ViewSettings
from pipeline.run import job, recaption
from pipeline.settings import CaptionConfiguration
from tests.builders import configuration, write_tars

WIDE = ViewSettings(view="context")
"""Another configuration than the data set's: more of the surroundings in each crop, so other captions."""

Recaption = Callable[..., job.JobResult]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits are short."""
    monkeypatch.setattr(job, "_POLL_S", 0.01)


@pytest.fixture
def tars(tmp_path: Path) -> Path:
    """Two tars, for two shards."""
    return write_tars(tmp_path / "tars", num_tars=2, num_images=4)


@pytest.fixture
def data(tars: Path, tmp_path: Path) -> Path:
    """A data set of two shards, with captions by the rule."""
    job.annotate([str(tars)], str(tmp_path / "data"), configuration=configuration())
    return tmp_path / "data"


@pytest.fixture
def wide(tars: Path, tmp_path: Path) -> Path:
    """What `annotate` makes of the same boxes with the other configuration."""
    job.annotate([str(tars)], str(tmp_path / "wide"), configuration=configuration(view=WIDE))
    return tmp_path / "wide"


def caption_configuration(**changes: Any) -> CaptionConfiguration:
    return CaptionConfiguration(**{"captioner": "rule", "caption": RuleConfig(), "view": WIDE, **changes})


def recaptioned(data: Path | str, name: str = "wide", **changes: Any) -> job.JobResult:
    """Run the job of `recaption` in this process."""
    changes.setdefault("configuration", caption_configuration())
    return recaption.recaption(str(data), name, **changes)
