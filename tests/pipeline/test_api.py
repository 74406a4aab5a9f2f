from pathlib import Path

import pytest

from pipeline.api import annotate
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


@pytest.mark.parametrize("settings", [{"limits": 3}, {"select": {"max_region": 1}}, {"proposer": "nobody"}])
def test_a_setting_that_is_not_one_is_an_error(tmp_path: Path, settings: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"limits|max_region|nobody"):
        annotate(str(tmp_path), str(tmp_path / "out"), **settings)
