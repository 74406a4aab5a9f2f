from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipeline.propose.detr import Detr, DetrConfig
from pipeline.propose.fastsam import FastSam, FastSamConfig
from pipeline.propose.rpn import Rpn, RpnConfig
from pipeline.propose.sam import Sam, SamConfig
from pipeline.propose.yolov9 import Yolov9, Yolov9Config
from pipeline.sample import DecodedImage, Pixels
from tests.builders import decoded_image
from tests.random_models import random_fastsam, random_libreyolo, random_rpn, random_sam, random_yolov9

MakeImage = Callable[..., DecodedImage]


@pytest.fixture(scope="session")
def make_image() -> MakeImage:
    """Returns a function that wraps pixels as a decoded image; what proposers do not read is empty."""

    return decoded_image


@pytest.fixture(scope="session")
def rectangle() -> Callable[..., Pixels]:
    """Returns a function that paints a bright rectangle (xyxy) on a plain dark image."""

    def paint(width: int, height: int, box: tuple[int, int, int, int]) -> Pixels:
        pixels = np.full((height, width, 3), (30, 40, 60), dtype=np.uint8)
        x0, y0, x1, y1 = box
        pixels[y0:y1, x0:x1] = (240, 200, 40)
        return pixels

    return paint


@pytest.fixture(scope="session")
def noise() -> Callable[..., Pixels]:
    """Returns a function that makes an image that is nothing but noise."""

    def make(width: int, height: int, seed: int) -> Pixels:
        return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)

    return make


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for the session's random weights."""
    return tmp_path_factory.mktemp("weights")


@pytest.fixture(scope="session")
def ultralytics(checkpoints: Path) -> Yolov9:
    path = checkpoints / "yolov9t.pt"
    sha256 = random_yolov9(path)
    return Yolov9(Yolov9Config(model=str(path), sha256=sha256, image_side=128, min_score=1e-6, max_proposals=5))


@pytest.fixture(scope="session")
def libreyolo(checkpoints: Path) -> Yolov9:
    path = checkpoints / "yolov9t.safetensors"
    random_libreyolo(path)
    return Yolov9(Yolov9Config(model=str(path), engine="libreyolo", image_side=128, min_score=1e-6, max_proposals=5))


@pytest.fixture(scope="session")
def mini() -> Detr:
    return Detr(DetrConfig(model="mini"))


@pytest.fixture(scope="session")
def fastsam(checkpoints: Path) -> FastSam:
    path = checkpoints / "FastSAM-n.pt"
    sha256 = random_fastsam(path)
    return FastSam(
        FastSamConfig(model=str(path), sha256=sha256, image_side=128, min_score=1e-6, max_proposals=5, masks=True)
    )


@pytest.fixture(scope="session")
def rpn(checkpoints: Path) -> Rpn:
    path, model = checkpoints / "rpn.safetensors", "fasterrcnn_mobilenet_v3_large_320_fpn"
    random_rpn(path, model)
    return Rpn(RpnConfig(model=model, weights=str(path), image_side=192, max_proposals=8))


@pytest.fixture(scope="session")
def sam(checkpoints: Path) -> Sam:
    folder = checkpoints / "sam"
    random_sam(folder)
    # With random weights, masks are neither stable nor different.
    return Sam(SamConfig(model=str(folder), points_per_side=3, min_stability=0, max_iou=1, max_proposals=9, masks=True))


@pytest.fixture(params=["ultralytics", "libreyolo", "mini", "fastsam", "rpn", "sam"])
def model_proposer(request: pytest.FixtureRequest) -> Detr | Yolov9 | FastSam | Rpn | Sam:
    """Each proposer that runs a model."""
    found: Detr | Yolov9 | FastSam | Rpn | Sam = request.getfixturevalue(request.param)
    return found
