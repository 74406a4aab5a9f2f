import subprocess
import sys

import numpy as np
import pytest

from pipeline.backends import load_backend
from pipeline.propose import PROPOSERS, proposer_class
from pipeline.propose.order import best_first
from pipeline.sample import Proposals
from schemas.boxes import as_boxes


def test_a_name_gives_its_class():
    manual = proposer_class("manual")
    assert manual.name == "manual"
    assert manual(manual.config_class()).propose([]) == []


def test_an_unknown_name_is_told_the_known_ones():
    with pytest.raises(ValueError, match=r"unknown proposer 'yolo'; known: .*manual, .*selective_search"):
        proposer_class("yolo")


def test_an_error_names_the_kind_of_the_registry():
    with pytest.raises(ValueError, match="unknown thing 'b'; known: a"):
        load_backend({"a": "m:C"}, "thing", "b")


def test_importing_the_registry_imports_no_backend():
    script = (
        "import sys, pipeline.propose, pipeline.caption; "
        "print([m for m in sys.modules if m in ('cv2', 'torch', 'pipeline.propose.manual', 'pipeline.caption.rule')])"
    )
    printed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "[]"


@pytest.mark.parametrize("name", ["manual", "selective_search"])
def test_weightless_proposers_say_so(name):
    backend = proposer_class(name)
    provenance = backend(backend.config_class()).provenance()
    assert PROPOSERS[name]
    assert provenance["name"] == backend.name == name
    assert provenance["weights"] is None
    assert all(terms.permissive for terms in backend.licenses(backend.config_class()))


@pytest.mark.parametrize("name", sorted(PROPOSERS))
def test_planning_with_a_proposer_imports_no_torch(name):
    script = (
        f"import sys; from pipeline.propose import proposer_class; cls = proposer_class({name!r}); "
        "cls.licenses(cls.config_class()); print('torch' in sys.modules)"
    )
    printed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "False"


@pytest.mark.parametrize("name", ["yolov9", "fastsam", "rpn"])
@pytest.mark.parametrize("side", [0, 100, -32])
def test_an_input_side_that_the_models_do_not_have_is_refused(name, side):
    with pytest.raises(ValueError, match=f"--propose.image-side is {side}, but must be a multiple of 32"):
        proposer_class(name).config_class(image_side=side)


def test_proposals_of_equal_score_leave_by_geometry():
    boxes = [(5, 0, 6, 6), (0, 5, 6, 6), (0, 0, 6, 7), (0, 0, 6, 6), (1, 1, 2, 2)]
    proposals = Proposals(
        boxes=as_boxes(boxes),
        scores=np.array([0.5, 0.5, 0.5, 0.5, 0.9], dtype=np.float32),
        labels=tuple("abcde"),
        masks=tuple("ABCDE"),
    )
    ordered = best_first(proposals)
    assert "".join(ordered.labels) == "edcab"
    assert "".join(ordered.masks) == "EDCAB"
    assert ordered.boxes.tolist() == [list(boxes["abcde".index(label)]) for label in ordered.labels]
    assert ordered.scores.tolist() == sorted(proposals.scores.tolist(), reverse=True)
