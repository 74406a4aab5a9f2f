"""A worker whose models cannot be loaded says which, by its flag, in a line."""

from pathlib import Path

import pytest

from tests.builders import run, write_photos
from tests.random_captioners import random_llava
from tests.random_detectors import random_detector

pytestmark = pytest.mark.filterwarnings("default")  # of transformers, about the models that it is asked for


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_photos(tmp_path / "photos", 1)


@pytest.mark.parametrize("lost", ["tokenizer.json", "config.json", "processor_config.json"])
def test_a_captioner_that_lacks_a_file_is_named(photos: Path, tmp_path: Path, lost: str) -> None:
    random_llava(tmp_path / "llava")
    (tmp_path / "llava" / lost).unlink()
    models = ("--proposer", "selective_search", "--captioner", "vlm", "--caption.model", tmp_path / "llava")
    outcome = run("annotate", photos, tmp_path / "out", *models, "--device", "cpu")
    assert outcome.code == 2
    said = f"fineclip: the models cannot be loaded: the captioner vlm (--caption.model {tmp_path / 'llava'}): "
    assert outcome.err.splitlines()[-1].startswith(said), outcome.err


def test_a_proposer_whose_processor_is_unknown_is_named(photos: Path, tmp_path: Path) -> None:
    random_detector(tmp_path / "detr", "yolos")
    (tmp_path / "detr" / "preprocessor_config.json").write_text('{"image_processor_type": "NoSuchProcessor"}')
    models = ("--proposer", "detr", "--propose.model", tmp_path / "detr", "--captioner", "rule")
    outcome = run("annotate", photos, tmp_path / "out", *models, "--device", "cpu")
    assert outcome.code == 2
    last = outcome.err.splitlines()[-1]
    assert last.startswith(
        f"fineclip: the models cannot be loaded: the proposer detr (--propose.model {tmp_path}/detr): "
    )
    assert len(last) < 800
