"""What `annotate` writes is healthy, and what the doctor says to do brings a broken shard back."""

from pathlib import Path

import pytest

from pipeline.api import annotate
from pipeline.doctor.command import doctor_main

PHOTOGRAPHS = Path(__file__).parents[3] / "pipeline" / "golden" / "photographs"


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    output = tmp_path_factory.mktemp("doctor") / "scenes"
    annotate_scenes(output)
    return output


def annotate_scenes(output: Path) -> None:
    annotate("scenes:12", str(output), profile="weightless", proposer="manual", shard_size=5)


def test_annotated_photographs_have_no_error(tmp_path, capsys):
    annotate(str(PHOTOGRAPHS), str(tmp_path / "photographs"), profile="weightless", limit=3)
    assert doctor_main([str(tmp_path / "photographs")]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("healthy: 1 shard, 3 images")


def test_annotated_scenes_have_no_error(scenes, capsys):
    assert doctor_main([str(scenes), "--world-size", "3"]) == 0
    assert " in 3 shards" in capsys.readouterr().out


def test_the_remedy_brings_a_shard_back(scenes):
    tar, marker = scenes / "train-000001.tar", scenes / "train-000001.json"
    sound = tar.read_bytes()
    tar.write_bytes(sound[:-2000])
    assert doctor_main([str(scenes)]) == 1
    marker.unlink()
    (scenes / "_commit" / marker.name).unlink()
    annotate_scenes(scenes)
    assert tar.read_bytes() == sound
    assert doctor_main([str(scenes)]) == 0


def test_a_planned_shard_that_is_not_there_is_a_warning(scenes, capsys):
    contents = {path: path.read_bytes() for path in scenes.glob("*train-000002.*")} | {
        path: path.read_bytes() for path in (scenes / "_commit").glob("train-000002.*")
    }
    contents[scenes / "dataset.json"] = (scenes / "dataset.json").read_bytes()
    for path in contents:
        path.unlink()
    code = doctor_main([str(scenes)])
    for path, content in contents.items():
        path.write_bytes(content)
    assert code == 0
    assert "1 of 3 planned shards are not there" in " ".join(capsys.readouterr().out.split())
