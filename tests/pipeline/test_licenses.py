"""The licence ledger: what is permissive, what is refused, and that the README tells the same."""

from pathlib import Path

import pytest

from pipeline.caption import CAPTIONERS, captioner_class
from pipeline.caption.blip2 import Blip2, Blip2Config
from pipeline.licenses import BITSANDBYTES, LIBREYOLO, LicenseError, check_permissive, known_weights, weights_license
from pipeline.propose import PROPOSERS, proposer_class
from pipeline.propose.yolov9 import Yolov9, Yolov9Config
from tests.builders import run, write_tars

README = Path(__file__).parents[2] / "README.md"


def test_weights_that_nobody_knows_are_not_permissive():
    assert not weights_license("someone/model").permissive
    assert weights_license("someone/model", stated="MIT").permissive
    assert weights_license("someone/model", stated="MIT").note == "as stated by the user"
    assert not weights_license("someone/model", stated="my own terms").permissive


def test_a_statement_does_not_overrule_the_ledger():
    assert not weights_license("Salesforce/blip2-opt-6.7b-coco", stated="MIT").permissive


def test_where_weights_lie_does_not_show(tmp_path: Path):
    (tmp_path / "weights.pt").write_bytes(b"")
    assert weights_license(str(tmp_path / "weights.pt")).what == "weights.pt"


def test_the_minis_are_permissive_and_the_paper_s_models_are_not():
    detector = Yolov9.licenses(Yolov9Config(model="mini", engine="libreyolo"))
    check_permissive((*detector, *Blip2.licenses(Blip2Config(model="mini"))))
    with pytest.raises(LicenseError) as raised:
        check_permissive((*Yolov9.licenses(Yolov9Config()), *Blip2.licenses(Blip2Config())))
    for refused in ("ultralytics (code): AGPL-3.0", "yolov9c.pt (weights)", "Salesforce/blip2-opt-6.7b-coco (weights)"):
        assert refused in str(raised.value)


@pytest.mark.parametrize("name", [*PROPOSERS, *CAPTIONERS])
def test_every_backend_names_its_code(name: str):
    backend = proposer_class(name) if name in PROPOSERS else captioner_class(name)
    assert "code" in [entry.kind for entry in backend.licenses(backend.config_class())]


def test_the_command_refuses_before_anything_is_written(tmp_path: Path):
    source, output = write_tars(tmp_path / "in", num_tars=1, num_images=1), tmp_path / "out"
    refused = run("annotate", source, output, "--profile", "paper", "--device", "cpu", "--permissive-only")
    assert refused.code == 2
    assert "--permissive-only refuses ultralytics (code): AGPL-3.0" in refused.err
    assert not output.exists()
    allowed = run("annotate", source, output, "--profile", "weightless", "--permissive-only", "--max-dead", "1")
    assert allowed.code == 0, allowed


def test_the_readme_names_all_code_and_weights_with_their_licence():
    rows = [line for line in README.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    backends = [proposer_class(name) for name in PROPOSERS] + [captioner_class(name) for name in CAPTIONERS]
    named = {
        entry for backend in backends for entry in backend.licenses(backend.config_class()) if entry.kind == "code"
    }
    for entry in (*named, LIBREYOLO, BITSANDBYTES, *known_weights()):
        row = next(row for row in rows if f"`{entry.what}`" in row)
        assert entry.license in row.split("|")[1], entry
        assert row.startswith("| **") is not entry.permissive, entry
