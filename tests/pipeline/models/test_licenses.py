"""The licence ledger: what is permissive, what is refused, and that README.md and docs/licences.md tell the same."""

from pathlib import Path

import pytest

from pipeline.caption import CAPTIONERS, captioner_class
from pipeline.caption.blip2 import Blip2, Blip2Config
from pipeline.caption.clip_rule import ClipRule, ClipRuleConfig
from pipeline.caption.openai import Openai, OpenaiConfig
from pipeline.caption.vlm import Vlm, VlmConfig
from pipeline.cli.profiles import PROFILES
from pipeline.models.licenses import (
    BITSANDBYTES,
    LIBREYOLO,
    Licensed,
    LicenseError,
    check_permissive,
    known_weights,
    model_license,
)
from pipeline.propose import PROPOSERS, proposer_class
from pipeline.propose.detr import Detr, DetrConfig
from pipeline.propose.rpn import Rpn, RpnConfig
from pipeline.propose.sam import Sam, SamConfig
from pipeline.propose.sam3 import Sam3, Sam3Config
from pipeline.propose.yolov9 import Yolov9, Yolov9Config
from tests.builders import run, write_tars

ROOT = Path(__file__).parents[3]
RESTRICTING, PERMISSIVE = ROOT / "README.md", ROOT / "docs" / "licences.md"


def test_weights_that_nobody_knows_are_not_permissive():
    assert not hub_license("someone/model").permissive
    assert hub_license("someone/model", stated="MIT").permissive
    assert hub_license("someone/model", stated="MIT").note == "as stated by the user"
    assert not hub_license("someone/model", stated="my own terms").permissive


def test_a_statement_does_not_overrule_the_ledger():
    assert not hub_license("Salesforce/blip2-opt-6.7b-coco", stated="MIT").permissive
    assert not model_license("internlm/internlm-xcomposer2-vl-7b", origin="server", stated="MIT").permissive


def hub_license(name: str, *, stated: str | None = None) -> Licensed:
    return model_license(name, mini=None, stated=stated)


@pytest.mark.parametrize("name", ["weights.pt", "mini", "fasterrcnn_resnet50_fpn_v2", "Salesforce/blip2-flan-t5-xl"])
def test_the_ledger_does_not_vouch_for_what_lies_here(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Anything can be in a local file, whatever it is called; and where it lies must not show."""
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    for found in (
        hub_license(name),
        hub_license(str(path)),
        model_license(name, origin="path"),
        model_license(str(path), origin="path"),
    ):
        assert found == Licensed(what=path.name, kind="weights", license="unknown", permissive=False)
    assert model_license(name, origin="path", stated="MIT").permissive


def test_a_name_of_torchvision_s_is_none_of_the_hub_s():
    assert hub_license("fasterrcnn_resnet50_fpn_v2").license == "unknown"


@pytest.mark.parametrize("name", ["nowhere/weights.pt", "../weights.pt", "weights.pt"])
def test_the_terms_of_a_file_do_not_depend_on_its_being_there(name: str):
    assert model_license(name, origin="path").what == "weights.pt"


def test_the_mini_is_the_one_that_ships_for_the_backend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mini").mkdir()  # what ships goes before what lies here, as it does where weights are looked for
    for backend in (
        Detr.licenses(DetrConfig(model="mini")),
        Blip2.licenses(Blip2Config(model="mini")),
        ClipRule.licenses(ClipRuleConfig(model="mini")),
    ):
        check_permissive(backend)
    for other in (
        Yolov9.licenses(Yolov9Config(model="mini", engine="ultralytics")),
        Vlm.licenses(VlmConfig(model="mini")),
        Sam.licenses(SamConfig(model="mini")),
        Openai.licenses(OpenaiConfig(model="mini")),
    ):
        assert "unknown" in [entry.license for entry in other if entry.kind == "weights"]


@pytest.mark.parametrize("entry", known_weights(), ids=lambda entry: entry.what)
def test_a_server_s_name_for_a_model_may_refuse_and_cannot_vouch(entry: Licensed):
    (served,) = (terms for terms in Openai.licenses(OpenaiConfig(model=entry.what)) if terms.kind == "weights")
    assert served.license == ("unknown" if entry.permissive else entry.license)
    assert not served.permissive
    stated = model_license(entry.what, origin="server", stated="MIT")
    assert stated.permissive is entry.permissive


def test_torchvision_s_own_weights_are_known_and_a_file_given_for_them_is_not():
    name = "fasterrcnn_mobilenet_v3_large_fpn"
    check_permissive(Rpn.licenses(RpnConfig(model=name)))
    with pytest.raises(LicenseError, match=name):
        check_permissive(Rpn.licenses(RpnConfig(weights=name)))


def test_the_minis_are_permissive_and_the_paper_s_models_are_not():
    check_permissive((*Detr.licenses(DetrConfig(model="mini")), *Blip2.licenses(Blip2Config(model="mini"))))
    with pytest.raises(LicenseError) as raised:
        check_permissive((*Yolov9.licenses(Yolov9Config()), *Blip2.licenses(Blip2Config())))
    for refused in ("ultralytics (code): AGPL-3.0", "yolov9c.pt (weights)", "Salesforce/blip2-opt-6.7b-coco (weights)"):
        assert refused in str(raised.value)


def test_the_permissive_profile_s_models_are_permissive():
    profile = PROFILES["permissive"]
    detector = DetrConfig(model=profile.defaults["propose.model"])
    captioner = VlmConfig(model=profile.defaults["caption.model"])
    assert (profile.proposer, profile.captioner) == (Detr.name, Vlm.name)
    check_permissive((*Detr.licenses(detector), *Vlm.licenses(captioner)))


@pytest.mark.parametrize("config", [DetrConfig(model="Roboflow/rf-detr-xlarge"), DetrConfig(model="nobody/knows")])
def test_detectors_that_restrict_or_are_not_known_are_refused(config: DetrConfig):
    with pytest.raises(LicenseError, match=config.model):
        check_permissive(Detr.licenses(config))


def test_gated_weights_are_named():
    with pytest.raises(LicenseError, match=r"facebook/sam3 \(weights\): SAM License"):
        check_permissive(Sam3.licenses(Sam3Config()))


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


def rows_of(page: Path) -> list[str]:
    return [line for line in page.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]


def test_the_readme_names_what_restricts_and_the_page_of_licences_the_rest():
    backends = [proposer_class(name) for name in PROPOSERS] + [captioner_class(name) for name in CAPTIONERS]
    named = {
        entry for backend in backends for entry in backend.licenses(backend.config_class()) if entry.kind == "code"
    }
    for entry in (*named, LIBREYOLO, BITSANDBYTES, *known_weights()):
        page = PERMISSIVE if entry.permissive else RESTRICTING
        row = next(row for row in rows_of(page) if f"`{entry.what}`" in row and entry.license in row.split("|")[1])
        assert row.startswith("| **") is not entry.permissive, entry


def test_the_readme_says_what_the_ledger_vouches_for_not():
    (row,) = (row for row in rows_of(RESTRICTING) if row.startswith("| **unknown**"))
    for said in ("--caption.trust-remote-code", "a server", "--propose.license", "--caption.license"):
        assert said in row
