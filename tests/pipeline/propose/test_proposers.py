import subprocess
import sys

import pytest

from pipeline.backends import load_backend
from pipeline.propose import PROPOSERS, proposer_class


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
    assert provenance["license"] == "Apache-2.0"
