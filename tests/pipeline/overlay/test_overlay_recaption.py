"""New captions on old boxes: what annotate would have said, resumed, shared, refused, and tied to the tables."""

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pyarrow.parquet as pq
import pytest

from pipeline.backends import SettingError
from pipeline.caption.label import LabelConfig
from pipeline.caption.rule import Rule, RuleConfig
from pipeline.caption.step import CaptionStep
from pipeline.caption.view import ViewSettings
from pipeline.errors import InterruptedRunError, PlanError, WorkError
from pipeline.overlay.plan import OverlayNameError, plan_overlay
from pipeline.overlay.recaption import Recaptioner
from pipeline.run import job
from pipeline.run.job import Drain
from pipeline.run.recaption import RecaptionWorker
from pipeline.sample import Caption, Crop
from pipeline.settings import RunSettings
from pipeline.store.storage import open_storage
from schemas.dataset import Dataset
from schemas.hashes import sha256
from schemas.overlays import CAPTION_COLUMNS
from schemas.records import decode_overlay_marker
from tests.builders import SEARCH, annotate, configuration, digests, members, run, write_photos, write_tar
from tests.pipeline.overlay.conftest import WIDE, caption_configuration, recaptioned


def overlay_files(data: Path, name: str = "wide") -> list[str]:
    return sorted(path.name for path in data.glob(f"train-*.{name}.*"))


def rows(dataset: Dataset) -> list[dict[str, Any]]:
    """Return the rows of all tables, without where images lie: records of other captions have other lengths."""
    return [row | {"tar_offset": None} for row in dataset.regions().to_pylist()]


def noted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Note the units that are captioned from now on."""
    units = []
    work = Recaptioner.recaption

    def noting(self: Recaptioner, unit: int, *rest: object) -> object:
        units.append(unit)
        return work(self, unit, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Recaptioner, "recaption", noting)
    return units


def test_the_captions_are_those_of_annotate_on_the_same_boxes(data: Path, wide: Path) -> None:
    result = recaptioned(data)
    assert (result.num_units_run, result.drained) == (2, False)
    assert (result.totals.images.inputs, result.totals.regions.ok, result.totals.num_shards) == (8, 16, 2)
    assert rows(Dataset.open(data, overlays=["wide"])) == rows(Dataset.open(wide))
    assert rows(Dataset.open(wide)) != rows(Dataset.open(data)), "the same captions would prove nothing"
    for ours, theirs in zip(
        Dataset.open(data, overlays=["wide"]).samples("train-000001"),
        Dataset.open(wide).samples("train-000001"),
        strict=True,
    ):
        assert ours == theirs


def test_the_same_captioner_says_the_same_again(data: Path) -> None:
    recaptioned(data, "same", configuration=caption_configuration(view=ViewSettings()))
    assert rows(Dataset.open(data, overlays=["same"])) == rows(Dataset.open(data))


def test_the_data_set_itself_is_not_touched(data: Path) -> None:
    before = digests(data)
    recaptioned(data)
    after = digests(data)
    assert {name: after[name] for name in before} == before
    assert {name for name in after.keys() - before.keys() if not name.startswith("_")} == set(overlay_files(data))
    assert not [path for path in data.rglob("*") if path.parts[-2] in ("_attempts", "_leases")]


def test_a_finished_overlay_starts_no_engine(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recaptioned(data)
    before = digests(data)
    monkeypatch.setattr(job, "load_engine", None)
    assert recaptioned(data).num_units_run == 0
    assert digests(data) == before


def test_what_is_missing_is_made_and_nothing_else(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recaptioned(data)
    before, units = digests(data), noted(monkeypatch)
    for name in ("train-000001.wide.parquet", "train-000001.wide.json"):
        (data / name).unlink()
    assert recaptioned(data).num_units_run == 1
    assert (units, digests(data)) == ([1], before)


def test_a_cut_table_is_made_again(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recaptioned(data)
    before, units = digests(data), noted(monkeypatch)
    path = data / "train-000000.wide.parquet"
    path.write_bytes(path.read_bytes()[:-1])
    recaptioned(data)
    assert (units, digests(data)) == ([0], before)


def test_shards_that_were_appended_are_added(data: Path, tars: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recaptioned(data)
    write_tar(tars / "00002.tar", [members("new")])
    job.annotate([str(tars)], str(data), configuration=configuration(), append=True)
    units = noted(monkeypatch)
    assert recaptioned(data).totals.num_shards == 3
    assert units == [2]
    assert len(Dataset.open(data, overlays=["wide"]).shards) == 3


def test_a_shard_whose_table_changed_is_done_again_alone(
    data: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    recaptioned(data)
    kept = Dataset.open(data, overlays=["wide"]).regions(["key", "region_id", "caption"])
    table = pq.read_table(data / "train-000001.parquet")
    index = table.column_names.index("message")
    pq.write_table(table.set_column(index, table.schema.field("message"), [["x"] * len(table)]), data / "changed")
    content = (data / "changed").read_bytes()
    (data / "changed").unlink()
    (data / "train-000001.parquet").write_bytes(content)
    marker = json.loads((data / "train-000001.json").read_bytes())
    marker["parquet"] = {"sha256": sha256(content), "size": len(content)}
    (data / "train-000001.json").write_bytes(msgspec.json.encode(marker))
    assert Dataset.open(data, overlays=["wide"]).regions(["key", "region_id", "caption"]) == kept
    assert "made from other tables of train-000001 than" in caplog.text
    units = noted(monkeypatch)
    recaptioned(data)
    assert units == [1]
    caplog.clear()
    assert Dataset.open(data, overlays=["wide"]).regions(["key", "region_id", "caption"]) == kept
    assert caplog.text == ""
    assert len(list((data / "_commit" / "wide").iterdir())) == 2, "what was decided for the old table is gone"


def test_another_configuration_under_the_name_is_refused(data: Path) -> None:
    recaptioned(data)
    wider = caption_configuration(view=ViewSettings(view="context", context_scale=2.0))
    with pytest.raises(PlanError, match=r"'wide' is of another configuration(.|\n)*view.scale: 1.5 in .*, 2.0 now"):
        recaptioned(data, configuration=wider)
    recaptioned(data, "wider", configuration=wider)


def test_an_overlay_of_another_s_making_is_refused(data: Path) -> None:
    (data / "train-000000.theirs.json").write_text("{}")
    with pytest.raises(PlanError, match=r"train-000000\.theirs\.json, of an overlay 'theirs' that has no _overlays"):
        recaptioned(data, "theirs")
    with pytest.raises(OverlayNameError, match=r"'No\.Name' is not a name for an overlay"):
        recaptioned(data, "No.Name")
    with pytest.raises(OverlayNameError, match="'edits' is the overlay of corrections made in the viewer"):
        recaptioned(data, "edits")


class FakeCaptioner(Rule):
    """The rule, which fails on the second crop that it is shown."""

    seen = 0

    def caption(self, crops: Sequence[Crop], prompts: Sequence[str | None]) -> list[Caption]:
        for crop in crops:
            if crop.region_id not in self.known:
                self.known.append(crop.region_id)
            if self.known.index(crop.region_id) == 1:
                raise RuntimeError("no words")
        return super().caption(crops, prompts)

    def __init__(self, config: RuleConfig) -> None:
        super().__init__(config)
        self.known: list[str] = []


def test_a_region_without_a_new_caption_is_taken_away_with_its_reason(data: Path) -> None:
    configuration, opened = caption_configuration(), Dataset.open(data)
    plan = plan_overlay(
        open_storage(str(data)), "fails", opened.markers, tool="recaption", configuration=configuration.as_json()
    )
    step = CaptionStep(captioner=FakeCaptioner(RuleConfig()), view=WIDE, prepares_ahead=False)
    recaptioner = Recaptioner(plan=plan, configuration=configuration, run=RunSettings(), step=step)
    advanced = []
    report = recaptioner.recaption(0, lambda: advanced.append(1))
    assert (len(advanced), report.regions.inputs, report.regions.ok) == (4, 8, 7)
    assert report.regions.dead == {"model_error": 1}
    recaptioner.recaption(1)
    seen = Dataset.open(data, overlays=["fails"])
    (dead,) = [row for row in seen.regions().to_pylist() if row["status"] == "dead"]
    assert (dead["reason"], dead["stage"], dead["message"]) == ("model_error", "caption", "RuntimeError: no words")
    assert [dead[name] for name in CAPTION_COLUMNS] == [None] * 5
    assert dead["region_id"] == step.captioner.known[1]  # type: ignore[attr-defined]
    assert sum(sample.record.num_regions for sample in seen.samples("train-000000")) == 7


def test_a_damaged_image_ends_the_job_with_its_name(data: Path) -> None:
    content = bytearray((data / "train-000000.tar").read_bytes())
    content[3000] ^= 1
    (data / "train-000000.tar").write_bytes(content)
    with pytest.raises(WorkError, match=r"key '000000000' .*sha256 is not its record's"):
        recaptioned(data)


def test_a_drained_job_goes_on_later(data: Path) -> None:
    drain = Drain()
    drain.request()
    assert recaptioned(data, drain=drain).drained
    assert overlay_files(data) == []
    assert not recaptioned(data).drained
    assert len(overlay_files(data)) == 4


def test_a_unit_that_is_never_done_ends_the_job(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RecaptionWorker, "recaption", lambda self, unit: None)
    with pytest.raises(InterruptedRunError, match="left the same 2 units undone"):
        recaptioned(data)


def test_worker_processes_write_the_same_files(data: Path, tmp_path: Path) -> None:
    recaptioned(data)
    one = {name: (data / name).read_bytes() for name in overlay_files(data)}
    for path in [*data.glob("*.wide.*"), *(data / "_commit" / "wide").iterdir()]:
        path.unlink()
    recaptioned(data, run=RunSettings(workers=2))
    assert {name: (data / name).read_bytes() for name in overlay_files(data)} == one


def test_markers_name_what_made_the_overlay_and_from_what(data: Path) -> None:
    recaptioned(data)
    for shard, base in Dataset.open(data).markers.items():
        where = data / f"{shard}.wide.json"
        marker = decode_overlay_marker(where.read_bytes(), str(where))
        assert (marker.base_sha256, marker.overlay, marker.partial) == (base.parquet.sha256, "wide", False)
        assert marker.fingerprint == caption_configuration().fingerprint()
        assert marker.provenance["captioner"]["name"] == "rule"
        assert [entry["license"] for entry in marker.provenance["captioner"]["licenses"]] == ["Apache-2.0"]


def test_on_an_object_store(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    url = f"memory://{tmp_path.name}/data"
    fsspec.filesystem("memory").put(f"{data}/", f"/{tmp_path.name}/data/", recursive=True)
    assert recaptioned(url).num_units_run == 2
    assert recaptioned(url).num_units_run == 0
    recaptioned(data)
    for name in overlay_files(data):
        assert fsspec.filesystem("memory").cat_file(f"/{tmp_path.name}/data/{name}") == (data / name).read_bytes()


def test_the_command_loads_no_proposer(data: Path) -> None:
    code = (
        "import sys, fineclip\n"
        f"code = fineclip.main(['recaption', {str(data)!r}, '--captioner', 'rule', '--as', 'again'])\n"
        "light = {'base', 'select', 'masks', 'order', 'squares', 'letterbox'}\n"
        "print('END', code, sorted(n for n in sys.modules if n.startswith('pipeline.propose.') "
        "and n.split('.')[2] not in light or n.split('.')[0] in ('ultralytics', 'libreyolo', 'torchvision', 'torch')))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines()[-1] == "END 0 []", ran.stdout + ran.stderr


def test_the_command_tells_what_it_did_and_what_is_wrong(data: Path, tmp_path: Path) -> None:
    made = run("recaption", data, "--captioner", "rule", "--as", "again")
    assert made.code == 0, made
    assert "--overlay again" in made.out
    assert "Nothing to do" in run("recaption", data, "--captioner", "rule", "--as", "again").out
    assert "overlay again: 2 of 2 shards, 16 regions." in run("status", data).out
    assert run("doctor", data, "--overlay", "again").code == 0
    refused = run("recaption", data, "--captioner", "rule", "--as", "again", "--caption.view", "context")
    assert (refused.code, "view.name: 'crop' in" in refused.err) == (3, True)
    for arguments, message in (
        ([data, "--as", "x"], "name the captioner by --captioner NAME"),
        ([data, "--captioner", "rule"], "--as"),
        ([data, "--captioner", "rule", "--as", "x", "--two-pools"], "nrecognized arguments: --two-pools"),
        ([tmp_path / "none", "--captioner", "rule", "--as", "x"], "no such folder"),
        ([data, "--captioner", "rule", "--as", "A"], "'A' is not a name for an overlay"),
        (
            [
                data,
                "--captioner",
                "blip2",
                "--caption.model",
                "Salesforce/blip2-opt-2.7b",
                "--as",
                "x",
                "--permissive-only",
            ],
            "OPT",
        ),
    ):
        outcome = run("recaption", *arguments)
        assert (outcome.code, message in " ".join(outcome.err.split())) == (2, True), outcome
    assert not (tmp_path / "none").exists()


def test_models_answer_the_golden_set_as_for_annotate(tmp_path: Path) -> None:
    output = tmp_path / "data"
    assert run("annotate", "scenes:3", output, "--proposer", "manual", "--captioner", "rule").code == 0
    made = run("recaption", output, "--profile", "mini", "--as", "mini")
    assert made.code == 0, made
    where = output / "train-000000.mini.json"
    captioner = decode_overlay_marker(where.read_bytes(), str(where)).provenance["captioner"]
    assert re.fullmatch("[0-9a-f]{16}", captioner["golden_answers"])
    (golden,) = (output / "_plan").glob("golden-*.json")
    answers = json.loads(golden.read_bytes())
    answers["captions"] = dict.fromkeys(answers["captions"], "something else")
    golden.write_bytes(json.dumps(answers).encode())
    refused = run("recaption", output, "--profile", "mini", "--as", "again")
    assert (refused.code, "gives different golden answers than before" in refused.err) == (2, True), refused


def test_labels_as_captions_are_refused_where_no_region_has_one(data: Path, tmp_path: Path) -> None:
    labels = caption_configuration(captioner="label", caption=LabelConfig(), view=ViewSettings())
    assert recaptioned(data, "labels", configuration=labels).totals.regions.ok == 16
    unlabelled = tmp_path / "unlabelled"
    photographs = write_photos(tmp_path / "photographs", 2)
    annotate(photographs, unlabelled, flags=SEARCH)
    with pytest.raises(SettingError, match=r"--captioner label says the label .* and no region of .* has one"):
        recaptioned(unlabelled, "labels", configuration=labels)
    assert not (unlabelled / "_overlays").exists()
