"""Whatever is changed in a file, the doctor finds it and does not fall ill itself."""

import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.doctor.examine import Checks, examine
from pipeline.doctor.findings import Level
from schemas.hashes import sha256
from schemas.records import FileDigest
from tests.pipeline.doctor import plant
from tests.shards import write_index, write_shard

CHECKS = Checks(threads=1)
FILES = ("train-000000.tar", "train-000000.parquet", "train-000000.json", "dataset.json")


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("damage") / "sound"
    plant.write_sound(folder)
    write_index(str(folder), ["train-000000", "train-000001"])
    return folder


def damaged(data: st.DataObject, sound: Path, name: str) -> Path:
    """Return a copy of the data set in which a file is cut, or has one other byte."""
    folder = sound.parent / "damaged"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(sound, folder)
    content = bytearray((folder / name).read_bytes())
    position = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.integers(0, 3)) == 0:
        del content[position:]
    else:
        content[position] ^= data.draw(st.integers(1, 255))
    (folder / name).write_bytes(content)
    return folder


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data(), name=st.sampled_from(FILES[:2]))
def test_any_change_of_tar_or_table_is_an_error(sound, data, name):
    assert examine(str(damaged(data, sound, name)), CHECKS).findings.num(Level.ERROR)


@settings(max_examples=80, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data(), name=st.sampled_from(FILES))
def test_changes_that_hashes_do_not_show_end_in_a_diagnosis(sound, data, name):
    folder = damaged(data, sound, name)
    kind = name.rpartition(".")[2]
    if kind in ("tar", "parquet"):
        content = (folder / name).read_bytes()
        plant.change_marker(folder, **{kind: FileDigest(sha256=sha256(content), size=len(content))})
    assert examine(str(folder), CHECKS).num_shards >= 1


def test_a_shard_of_dead_images_is_sound(tmp_path):
    write_shard(str(tmp_path), [], dead=["x", "y"])
    diagnosis = examine(str(tmp_path), CHECKS)
    assert (diagnosis.findings.num(Level.ERROR), diagnosis.num_images) == (0, 0)
