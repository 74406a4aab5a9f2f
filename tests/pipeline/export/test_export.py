"""What holds of every format: bytes that repeat, kills that cost nothing, refusals with a sentence."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.export import export as flow
from pipeline.export.formats import FORMATS
from pipeline.export.part import PARTS, Part
from tests.builders import run
from tests.pipeline.export.conftest import Export, samples, tree, write_data
from tests.shards import caption_overlay, tiny_sample, write_overlay, write_shard

ROOT = Path(__file__).parents[3]
FORMAT_NAMES = pytest.mark.parametrize("to", FORMATS)
KILLED = """
import os, signal, sys
from pipeline.export import part
finish, left = part.Part.finish, [{parts}]
def killed(self):
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
    left[0] -= 1
    return finish(self)
part.Part.finish = killed
import fineclip
fineclip.main(sys.argv[1:])
"""


@FORMAT_NAMES
@pytest.mark.parametrize("parts", [0, 2])
def test_a_killed_export_goes_on_and_ends_in_the_same_bytes(
    to: str, parts: int, data: str, export: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert export(to, out="whole").code == 0
    command = ["export", data, str(tmp_path / "out"), "--to", to]
    killed = subprocess.run(
        [sys.executable, "-c", KILLED.format(parts=parts), *command], env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    assert killed.returncode == -signal.SIGKILL
    written = []
    finish = Part.finish
    monkeypatch.setattr(Part, "finish", lambda part: written.append(str(part.shard)) or finish(part))
    outcome = export(to)
    assert outcome.code == 0, outcome
    assert written == ["train-000000", "train-000001", "val-000000"][parts:]
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


@FORMAT_NAMES
def test_a_second_run_has_nothing_to_do_until_a_file_is_missing(to: str, export: Export, tmp_path: Path) -> None:
    first = export(to)
    before = tree(tmp_path / "out")
    again = export(to)
    assert again.code == 0
    assert "Nothing to do" in again.out
    assert "Nothing to do" not in first.out
    names = [name for name in before if not name.startswith(".export")]
    for name in (names[0], names[-1]):
        (tmp_path / "out" / name).unlink()
        assert export(to).code == 0
        assert tree(tmp_path / "out") == before
    assert not list((tmp_path / "out" / PARTS).glob("*.jsonl"))


def test_another_configuration_or_other_data_are_refused(export: Export, data: str, tmp_path: Path) -> None:
    assert export("crops").code == 0
    before = tree(tmp_path / "out")
    for flags, said in ((("coco",), "format was 'crops'"), (("crops", "--crop-scale", "1.5"), "options was")):
        refused = export(*flags)
        assert refused.code == 3
        assert said in refused.err
    write_shard(data, [tiny_sample("new")], index=2)
    refused = export("crops")
    assert refused.code == 3
    assert "data was" in refused.err
    assert tree(tmp_path / "out") == before


def test_a_folder_with_other_files_is_refused_and_left_alone(export: Export, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    refused = export("coco")
    assert refused.code == 3
    assert "is not empty" in refused.err
    assert list(tree(tmp_path / "out")) == ["mine.txt"]


def test_a_second_process_is_refused(export: Export, tmp_path: Path) -> None:
    with flow._locked(tmp_path / "out"):
        refused = export("coco")
    assert refused.code == 3
    assert "another process" in refused.err
    assert export("coco").code == 0


def test_overlays_and_filter_lists_are_seen(data: str, export: Export, tmp_path: Path) -> None:
    for split, shards in samples().items():
        for index, group in enumerate(shards):
            marker = write_shard(data, group, split=split, index=index)
            write_overlay(data, marker, "loud", caption_overlay(group, "LOUD"))
    keep = tmp_path / "keep.jsonl"
    keep.write_text(json.dumps({"key": "a", "keep": False}) + "\n")
    outcome = export("grounding", "--overlay", "loud", "--filter", str(keep))
    assert outcome.code == 0, outcome
    lines = [json.loads(line) for line in (tmp_path / "out" / "train.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines] == ["b", "d"]
    assert all(ref.startswith("LOUD ") for line in lines for ref in line["objects"]["ref"])
    assert export("grounding").code == 3, "without them it is another export"


def test_two_images_of_one_key_are_refused(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", {"train": [[tiny_sample("a")], [tiny_sample("a")]]})
    refused = run("export", data, tmp_path / "out", "--to", "coco")
    assert refused.code == 2
    assert "two images have the key 'a'" in refused.err
    assert not (tmp_path / "out").exists()


def test_wrong_usage_is_said(export: Export, data: str, tmp_path: Path) -> None:
    assert "crop-scale is of --to crops" in export("coco", "--crop-scale", "2").err
    assert "box-style is of --to grounding" in export("crops", "--box-style", "llava").err
    assert export("voc").code == 2
    assert export("crops", "--crop-scale", "0.5").code == 2


def test_a_plain_installation_exports(data: str, tmp_path: Path) -> None:
    heavy = ("apache_beam", "torch", "torchvision", "transformers", "pycocotools", "cv2", "duckdb", "open_clip")
    code = f"import sys; sys.modules.update(dict.fromkeys({heavy}))\nimport fineclip; sys.exit(fineclip.main())"
    for to in FORMATS:
        command = [sys.executable, "-c", code, "export", data, str(tmp_path / to), "--to", to]
        subprocess.run(command, check=True, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True)
