"""YOLOv9 through both engines. Random weights prove the plumbing: their boxes mean nothing, but must not change."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipeline.decode import DecodeSettings, decode
from pipeline.failures import Failure
from pipeline.images import DecodedImage, Pixels
from pipeline.propose.yolov9 import Yolov9, Yolov9Config
from pipeline.sources.base import SourceItem
from pipeline.weights import WeightsNotFoundError
from schemas.reasons import Reason
from tests.random_models import random_yolov9

MakeImage = Callable[..., DecodedImage]


@pytest.fixture(scope="module")
def ultralytics(tmp_path_factory: pytest.TempPathFactory) -> Yolov9:
    path = tmp_path_factory.mktemp("weights") / "yolov9t.pt"
    sha256 = random_yolov9(path)
    # Random weights score everything below 2e-4.
    return Yolov9(Yolov9Config(model=str(path), sha256=sha256, image_side=128, min_score=1e-6, max_proposals=5))


@pytest.fixture(scope="module")
def mini() -> Yolov9:
    return Yolov9(Yolov9Config(model="mini", engine="libreyolo", image_side=256, max_iou=0.5))


@pytest.fixture(params=["ultralytics", "mini"])
def proposer(request: pytest.FixtureRequest) -> Yolov9:
    found: Yolov9 = request.getfixturevalue(request.param)
    return found


def _noise(width: int, height: int, seed: int) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_batch_mates_change_nothing(proposer: Yolov9, make_image: MakeImage) -> None:
    images = [make_image(_noise(*size, seed)) for seed, size in enumerate([(120, 80), (40, 200), (33, 33), (300, 90)])]
    together = proposer.propose(images)
    for image, among in zip(images, together, strict=True):
        alone = proposer.propose([image])[0]
        np.testing.assert_allclose(alone.boxes, among.boxes, atol=0.05)
        np.testing.assert_allclose(alone.scores, among.scores, atol=1e-4)
        assert alone.labels == among.labels


def test_there_is_one_result_an_image_within_its_limits(ultralytics: Yolov9, make_image: MakeImage) -> None:
    proposals = ultralytics.propose([make_image(_noise(90, 60, seed)) for seed in range(3)])
    assert len(proposals) == 3
    for one in proposals:
        assert 0 < len(one.boxes) <= 5
        assert (np.diff(one.scores) <= 0).all()


@pytest.mark.usefixtures("ultralytics")
def test_the_engine_leaves_pillow_as_it_was() -> None:
    """Ultralytics' own `Image.open` raises ModuleNotFoundError for bytes that are no image."""
    item = SourceItem(key="k", index=0, uri="k.jpg", data=b"no image")
    failure = decode(item, DecodeSettings())
    assert isinstance(failure, Failure)
    assert failure.reason is Reason.DECODE


def test_a_pickled_checkpoint_must_be_named_by_its_hash(tmp_path: Path) -> None:
    path = tmp_path / "yolov9t.pt"
    path.write_bytes(b"anything")
    with pytest.raises(WeightsNotFoundError, match=r"can run code.*--propose\.sha256"):
        Yolov9(Yolov9Config(model=str(path)))


def test_missing_weights_say_which_flag_takes_a_path() -> None:
    with pytest.raises(WeightsNotFoundError, match=r"--propose\.model.*local path"):
        Yolov9.weights(Yolov9Config())


def test_the_weights_decide_the_fingerprint_and_their_place_does_not(tmp_path: Path) -> None:
    one, other = tmp_path / "a.pt", tmp_path / "b.pt"
    sha256 = random_yolov9(one)
    other.write_bytes(one.read_bytes())
    configs = [Yolov9Config(model=str(path), sha256=sha256) for path in (one, other)]
    assert Yolov9.weights(configs[0]) == Yolov9.weights(configs[1]) == {"model": f"sha256:{sha256}", "sha256": None}


def test_provenance_names_weights_engine_and_licence(proposer: Yolov9) -> None:
    provenance = proposer.provenance()
    assert provenance["weights"]["sha256"]
    assert provenance["license"] in ("AGPL-3.0", "MIT (by its own metadata)")
    assert len(provenance["libraries"]) == 2
