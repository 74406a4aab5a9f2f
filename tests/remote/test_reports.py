"""What users of fsspec's file systems and of webdataset reported to their makers, tried on our commands.

Names with signs that mean something elsewhere (fsspec/gcsfs issue 304, fsspec/s3fs issue 565), listings of several
pages, buckets that must not be listed (fsspec/s3fs issues 206 and 591), logins that run out. Connections that break in
the middle of a tar (webdataset/webdataset issue 112) are in `test_training.py`.
"""

from pathlib import Path

import pytest

from tests.builders import SEARCH, data_files, image_rows, jpeg, run, write_files, write_tars
from tests.remote.conftest import Store
from tests.remote.proxy import Trouble
from tests.remote.test_annotate import annotate

NAMES = ("a b.jpg", "50%25.jpg", "x+y.jpg", "ü#1.jpg", "q?.jpg", "c[1].jpg", "all*.jpg", "{0..1}.jpg", "sub/&=.jpg")


def is_listing(request: str) -> bool:
    return request in ("GET /bucket", "GET /bucket/")


def test_names_with_signs_that_mean_something_elsewhere(store: Store, tmp_path: Path) -> None:
    folder = write_files(tmp_path / "photos", {name: jpeg(number) for number, name in enumerate(NAMES)})
    source = store.put(folder, "photos")
    for place, name in ((source, "found"), (folder, "local")):
        ended = annotate(place, tmp_path / name, *SEARCH)
        assert ended.code == 0, ended.err
    rows, expected = image_rows(tmp_path / "found"), image_rows(tmp_path / "local")
    assert len(rows) == len(NAMES)
    assert [(row["key"], row["status"]) for row in rows.values()] == [(key, "ok") for key in expected]
    assert data_files(tmp_path / "found")["train-000000.tar"] == data_files(tmp_path / "local")["train-000000.tar"]


def test_a_listing_of_several_pages(store: Store, tmp_path: Path) -> None:
    """A page holds a thousand."""
    names = [f"{number:04d}.jpg" for number in range(1203)]
    source = store.put(write_files(tmp_path / "photos", dict.fromkeys(names, b"no picture")), "photos")
    planned = run("plan", source, tmp_path / "out", *SEARCH)
    assert planned.code == 0, planned
    assert "1,203" in planned.out + planned.err


def test_a_file_that_is_not_there_is_denied_to_who_may_not_list(store: Store, tmp_path: Path) -> None:
    """Whether a tar has a table beside it, with addresses and licences, cannot be known, nor left out in silence."""
    source = store.put(write_tars(tmp_path / "tars", num_tars=2, num_images=2), "tars")
    store.proxy.trouble = lambda request: "AccessDenied" if is_listing(request) else None
    ended = annotate(f"{source}/{{00000..00001}}.tar", tmp_path / "found")
    assert (ended.code, "00000.parquet" in ended.err, "s3:ListBucket" in ended.err) == (5, True, True), ended


@pytest.mark.parametrize(
    ("trouble", "told"), [("AccessDenied", "permission denied"), ("ExpiredToken", "give the store's credentials")]
)
def test_who_may_not_list_is_told_so_at_once(store: Store, tmp_path: Path, trouble: Trouble, told: str) -> None:
    source = store.put(write_tars(tmp_path / "tars", num_tars=2, num_images=2), "tars")
    store.proxy.trouble = lambda request: trouble if is_listing(request) else None
    ended = annotate(source, tmp_path / "found")
    assert (ended.code, told in ended.err, f"{source}" in ended.err) == (5, True, True), ended.err
    assert store.proxy.struck[trouble] < 4, "waiting does not help"


def test_a_login_that_runs_out_on_the_way_is_no_dead_image(store: Store, tmp_path: Path) -> None:
    source = store.put(write_tars(tmp_path / "tars", num_tars=3, num_images=2), "tars")
    assert annotate(source, tmp_path / "local").code == 0
    store.proxy.forget()
    store.proxy.trouble = lambda request: "ExpiredToken" if request.endswith("00002.tar") else None
    ended = annotate(source, tmp_path / "found")
    assert (ended.code, "give the store's credentials" in ended.err) == (5, True), ended.err
    store.proxy.forget()
    assert annotate(source, tmp_path / "found").code == 0
    assert data_files(tmp_path / "found") == data_files(tmp_path / "local")
