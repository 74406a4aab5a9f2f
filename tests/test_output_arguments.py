"""Where a command writes: OUTPUT may be a URL; what is written on this machine alone says so, before any work."""

from pathlib import Path

import pytest

from tests.builders import run

URL = "s3://bucket/new"
LOCAL: dict[str, tuple[str, ...]] = {
    "--out": ("train", "DATA", "--recipe", "mini", "--out", URL),
    "--out ": ("evaluate", "x.pt", "--task", "region-retrieval", "--data", "DATA", "--out", f"{URL}.json"),
    "OUT": ("export-model", "x.pt", URL),
    "OUT ": ("export-model", "x.pt", URL, "--format", "official"),
    "OUT  ": ("export", "DATA", URL, "--to", "coco"),
    "OUT.html": ("sheet", "DATA", f"{URL}.html"),
    "--marks": ("view", "DATA", "--marks", f"{URL}.jsonl"),
    "--json": ("doctor", "DATA", "--json", f"{URL}.json"),
    "--run": ("train-mini", "clip", "--run", URL),
}


@pytest.mark.parametrize("named", LOCAL)
def test_a_url_is_refused_with_a_sentence_where_a_file_is_written_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    monkeypatch.chdir(tmp_path)
    refused = run(*LOCAL[named])
    assert refused.code == 5, refused
    assert f"{named.strip()} {URL}" in refused.err
    assert "is written on this machine, and not to a store" in refused.err
    assert not list(tmp_path.iterdir()), "no folder called `s3:`"
