"""Captions that are wrong on purpose: how many, which, and that nothing else is changed."""

from collections import Counter
from typing import Any

import pytest

from pipeline.scenes.truth import SWAPPED, Swap, swap_captions
from schemas.hashes import text_hash, text_sha256
from tests.builders import annotate, run


def row(number: int, caption: str | None, status: str = "ok") -> dict[str, Any]:
    hashes = {} if caption is None else {"text_hash": text_hash(caption), "text_sha256": text_sha256(caption)}
    said = {"caption": caption, "captioner": "truth", "text_hash": None, "text_sha256": None, **hashes}
    return {"key": f"k{number}", "region_id": f"{number}", "status": status, **said}


def test_about_the_share_is_swapped_and_what_is_said_is_said_as_often() -> None:
    rows = [row(number, f"thing {number % 97}") for number in range(2000)]
    before = [dict(one) for one in rows]
    swap_captions(rows, Swap(share=0.2, seed=0))
    wrong = [place for place, one in enumerate(rows) if one["captioner"] == SWAPPED]
    assert len(wrong) == pytest.approx(400, abs=60)
    assert all(rows[place]["text_hash"] != before[place]["text_hash"] for place in wrong)
    assert all(rows[place]["text_hash"] == text_hash(rows[place]["caption"]) for place in wrong)
    assert all(one == before[place] for place, one in enumerate(rows) if place not in wrong)
    counts = Counter(one["caption"] for one in rows)
    assert max(abs(counts[text] - number) for text, number in Counter(one["caption"] for one in before).items()) <= 3
    again = [dict(one) for one in before]
    swap_captions(again, Swap(share=0.2, seed=0))
    assert again == rows
    swap_captions(again := [dict(one) for one in before], Swap(share=0.2, seed=1))
    assert again != rows


def test_what_cannot_be_swapped_stays() -> None:
    rows = [row(0, "the same"), row(1, "The same!"), row(2, None, "filtered")]
    before = [dict(one) for one in rows]
    swap_captions(rows, Swap(share=1.0, seed=0))
    assert rows == before


def test_the_command_names_its_overlay_and_refuses_what_is_no_share(tmp_path) -> None:
    annotate("scenes:3?seed=3", tmp_path / "data")
    assert run("truth", tmp_path / "data", "--swap", "1.5").code == 2
    assert run("truth", tmp_path / "data", "--swap", "nan").code == 2
    assert run("truth", tmp_path / "data", "--swap", "0.5").code == 0
    assert (tmp_path / "data/train-000000.swapped.parquet").is_file()
    assert run("truth", tmp_path / "data", "--swap", "0.5", "--seed", "2").code == 3
