import re
from pathlib import Path

import pytest

from pipeline.api import annotate
from pipeline.models.device import DeviceError
from schemas.dataset import Dataset
from tests.builders import write_tars


def test_a_notebook_gets_what_the_command_gives(tmp_path: Path) -> None:
    source = write_tars(tmp_path / "source", num_tars=1, num_images=5)
    result = annotate(
        str(source), str(tmp_path / "out"), proposer="manual", captioner="rule", limit=3, select={"max_regions": 1}
    )
    assert result.totals.images.ok == 3
    records = [sample.record for sample in Dataset.open(tmp_path / "out").samples("train-000000")]
    assert [record.num_regions for record in records] == [1, 1, 1]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"limits": 3}, "--limits: there is no such setting; did you mean --limit?"),
        ({"proposr": "manual"}, "--proposr: there is no such setting; did you mean --proposer?"),
        ({"select": {"max_region": 1}}, "--select.max-region: there is no such setting; did you mean --select.max-reg"),
        ({"select": 3}, "select is 3, but must hold settings, as in {'min_image_side': 32}"),
        ({"proposer": "nobody"}, "unknown proposer 'nobody'"),
    ],
)
def test_a_setting_that_is_not_one_is_an_error(tmp_path: Path, settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        annotate(str(tmp_path), str(tmp_path / "out"), **settings)
    assert list(tmp_path.iterdir()) == []


def test_the_paper_s_models_without_a_gpu_are_refused_here_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.cli.command.num_gpus", lambda: 0)
    with pytest.raises(DeviceError, match="--profile weightless"):
        annotate(str(write_tars(tmp_path / "source", num_tars=1, num_images=1)), str(tmp_path / "out"))
