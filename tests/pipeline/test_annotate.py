"""One unit of work: order, batches, failures, and that two pools write what one pool writes."""

import errno
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import annotate
from pipeline.annotate import Annotator
from pipeline.caption import step
from pipeline.caption.rule import Rule, RuleConfig
from pipeline.plan.make import make_plan
from pipeline.propose.manual import Manual, ManualConfig
from pipeline.propose.select import SelectSettings
from pipeline.sample import Caption, Crop, DecodedImage, Drop, Proposals, Sample, SourceItem
from pipeline.settings import Configuration, PlanSettings, RunSettings
from pipeline.store.commit import commit
from pipeline.store.storage import open_storage
from pipeline.write import proposals_file
from pipeline.write.shards import BalanceError
from schemas.dataset import Dataset
from schemas.hashes import key_fraction
from schemas.reasons import Reason, Stage
from schemas.records import decode_shard_marker
from tests.builders import Members, configuration, digests, jpeg, members, read_markers, write_tar


class FakeCaptioner(Rule):
    """The rule, with a note of every batch, and sentences or errors instead of some of its own."""

    def __init__(self, batch_size: int = 4, instead: dict[int, str | Exception] | None = None) -> None:
        super().__init__(RuleConfig(batch_size=batch_size))
        self.batches: list[list[str]] = []
        self._instead = instead or {}
        self._first_seen: dict[str, int] = {}

    def caption(self, crops: Sequence[Crop], prompts: Sequence[str | None]) -> list[Caption]:
        ids = [crop.region_id for crop in crops]
        self.batches.append(ids)
        for region_id in ids:
            self._first_seen.setdefault(region_id, len(self._first_seen))
        captions = super().caption(crops, prompts)
        for index, region_id in enumerate(ids):
            text = self._instead.get(self._first_seen[region_id])
            if isinstance(text, Exception):
                raise text
            if text is not None:
                captions[index] = Caption(text=text, score=None)
        return captions


class FakeProposer(Manual):
    """The given regions, with a note of every batch, and an error for some keys."""

    def __init__(self, batch_size: int = 4, bad_keys: Sequence[str] = ()) -> None:
        super().__init__(ManualConfig())
        self.batch_size = batch_size
        self.batches: list[list[str]] = []
        self._bad_keys = bad_keys

    def propose(self, images: Sequence[DecodedImage]) -> list[Proposals]:
        keys = [image.key for image in images]
        self.batches.append(keys)
        if set(keys) & set(self._bad_keys):
            raise RuntimeError("a bad image is among them")
        return super().propose(images)


Make = Callable[..., Annotator]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Returns a function that plans the samples as one unit and returns what annotates it."""

    def make(samples: Sequence[Members], output: str = "out", **changes: Any) -> Annotator:
        parts = {"proposer": Manual(ManualConfig()), "captioner": Rule(RuleConfig())}
        parts |= {name: changes.pop(name) for name in tuple(parts) if name in changes}
        settings: Configuration = configuration(**changes)
        source = tmp_path / "source" / "00000.tar"
        if not source.exists():
            write_tar(source, samples)
        storage = open_storage(str(tmp_path / output))
        plan = make_plan(storage, [str(source.parent)], settings, PlanSettings())
        return Annotator(plan=plan, configuration=settings, run=RunSettings(), **parts)

    return make


def rows(output: Path, shard: str = "train-000000") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pq.read_table(output / f"{shard}.parquet").to_pylist()
    return found


def image_rows(output: Path, shard: str = "train-000000") -> list[tuple[str, str | None]]:
    return [(row["key"], row["reason"]) for row in rows(output, shard) if row["region_id"] is None]


MIXED: list[Members] = [
    members("a"),
    members("b", image=b"not an image"),
    members("c", boxes=()),
    members("d", image=jpeg(1, width=20, height=20)),
    members("e", boxes=[(0, 0, 20, 20), (float("nan"), 0, 1, 1), (200, 200, 300, 300)]),
    [("f.txt", b"a caption without an image")],
    members("g"),
]
MIXED_REASONS = [
    ("a", None),
    ("b", "decode"),
    ("c", None),
    ("d", "low_resolution"),
    ("e", None),
    ("f", "no_image"),
    ("g", None),
]


def test_samples_keep_their_order_whatever_becomes_of_them(make: Make, tmp_path: Path) -> None:
    make(MIXED, proposer=FakeProposer(batch_size=2), captioner=FakeCaptioner(batch_size=3)).annotate(0)
    assert image_rows(tmp_path / "out") == MIXED_REASONS
    samples = Dataset.open(tmp_path / "out").samples("train-000000")
    assert [sample.key for sample in samples] == ["a", "c", "e", "g"]


def test_counts_balance_and_are_in_the_marker(make: Make, tmp_path: Path) -> None:
    report = make(MIXED).annotate(0)
    marker = decode_shard_marker((tmp_path / "out" / "train-000000.json").read_bytes(), "marker")
    assert (report.images, report.regions) == (marker.images, marker.regions)
    assert (marker.images.inputs, marker.images.ok) == (7, 4)
    assert marker.images.filtered == {"low_resolution": 1}
    assert marker.images.dead == {"decode": 1, "no_image": 1}
    assert (marker.regions.inputs, marker.regions.ok) == (11, 5)
    assert marker.regions.filtered == {"overlap": 2, "small": 2, "outside": 1}
    assert marker.regions.dead == {"invalid_box": 1}
    assert sum(row["region_id"] is not None for row in rows(tmp_path / "out")) == 11


def test_models_get_full_batches_of_what_is_ok(make: Make) -> None:
    proposer, captioner = FakeProposer(batch_size=3), FakeCaptioner(batch_size=4)
    make(MIXED, proposer=proposer, captioner=captioner).annotate(0)
    assert proposer.batches == [["a", "c", "e"], ["g"]]
    assert [len(batch) for batch in captioner.batches] == [4, 1]


def test_the_second_of_equal_keys_is_dead(make: Make, tmp_path: Path) -> None:
    make([members("a"), members("b"), members("a")]).annotate(0)
    reasons = [reason for _, reason in image_rows(tmp_path / "out")]
    assert reasons == [None, None, "duplicate_key"]


def test_what_proposer_and_captioner_raise_costs_one_image_and_one_region(make: Make, tmp_path: Path) -> None:
    samples = [members(key) for key in "abcd"]
    proposer = FakeProposer(bad_keys=["b"])
    captioner = FakeCaptioner(instead={2: MemoryError("no room"), 5: " \0 \n"})
    make(samples, proposer=proposer, captioner=captioner).annotate(0)
    assert image_rows(tmp_path / "out") == [("a", None), ("b", "model_error"), ("c", None), ("d", None)]
    found = [row for row in rows(tmp_path / "out") if row["status"] == "dead"]
    ends = [(row["key"], row["reason"], row["stage"], row["region_id"] is None) for row in found]
    assert ends == [
        ("b", "model_error", "propose", True),
        ("c", "oom", "caption", False),
        ("d", "empty_caption", "caption", False),
    ]
    regions = {s.key: s.record.num_regions for s in Dataset.open(tmp_path / "out").samples("train-000000")}
    assert regions == {"a": 2, "c": 1, "d": 1}


def test_one_poison_crop_in_512_is_one_dead_row(make: Make, tmp_path: Path) -> None:
    samples = [members(f"{number:03d}", boxes=[(0, 0, 20, 20), (40, 20, 90, 60)]) for number in range(256)]
    clean = FakeCaptioner(batch_size=512)
    make(samples, output="clean", captioner=clean).annotate(0)
    poisoned = FakeCaptioner(batch_size=512, instead={300: RuntimeError("an illegal crop")})
    report = make(samples, captioner=poisoned).annotate(0)
    dead = [row for row in rows(tmp_path / "out") if row["status"] == "dead"]
    assert [(row["region_id"], row["reason"]) for row in dead] == [(clean.batches[0][300], "model_error")]
    captions = {row["region_id"]: row["caption"] for row in rows(tmp_path / "clean") if row["caption"]}
    assert len(captions) == 512
    del captions[dead[0]["region_id"]]
    assert {row["region_id"]: row["caption"] for row in rows(tmp_path / "out") if row["caption"]} == captions
    assert (report.regions.ok, report.regions.num_dead) == (511, 1)


class OutOfMemoryError(RuntimeError):
    """Named as torch's is."""


def test_a_captioner_short_of_memory_describes_all_the_same(make: Make, tmp_path: Path) -> None:
    class Short(FakeCaptioner):
        def caption(self, crops: Sequence[Crop], prompts: Sequence[str | None]) -> list[Caption]:
            if len(crops) > 7:
                raise OutOfMemoryError
            return super().caption(crops, prompts)

    samples = [members(f"{number:03d}", boxes=[(0, 0, 20, 20), (40, 20, 90, 60)]) for number in range(40)]
    make(samples, output="clean").annotate(0)
    report = make(samples, captioner=Short(batch_size=64)).annotate(0)
    tars = [(tmp_path / output / "train-000000.tar").read_bytes() for output in ("out", "clean")]
    assert tars[0] == tars[1]
    assert (report.regions.ok, report.batches["caption"].learned_size) == (80, 4)


def test_captions_have_single_spaces(make: Make, tmp_path: Path) -> None:
    make([members("a")], captioner=FakeCaptioner(instead={0: " a\tred\n\0 box  "})).annotate(0)
    assert "a red box" in [row["caption"] for row in rows(tmp_path / "out")]


def test_where_regions_are_rare_few_samples_wait(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step, "_LEAST_WINDOW", 3)
    monkeypatch.setattr(step, "_WINDOW_A_PLACE", 0)
    sparse = [members(f"k{i}", boxes=[(0, 0, 20, 20)] if i % 2 == 0 else ()) for i in range(9)]
    captioner = FakeCaptioner(batch_size=64)
    annotator = make(sparse, captioner=captioner)
    waiting_at_most = _count_waiting(annotator, monkeypatch)
    annotator.annotate(0)
    assert [len(batch) for batch in captioner.batches] == [2, 2, 1]
    assert max(waiting_at_most) <= 3


def _count_waiting(annotator: Annotator, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Note, whenever a sample reaches the captioner's queue, how many have not been written yet."""
    counts, inside = [0], 0

    def entering(samples: Iterator[Any]) -> Iterator[Any]:
        nonlocal inside
        for sample in samples:
            inside += 1
            counts.append(inside)
            yield sample

    def leaving(samples: Iterator[Any]) -> Iterator[Any]:
        nonlocal inside
        for sample in samples:
            inside -= 1
            yield sample

    caption = step.CaptionStep.run
    monkeypatch.setattr(step.CaptionStep, "run", lambda self, s, *rest: leaving(caption(self, entering(s), *rest)))
    return counts


def test_no_samples_at_all(make: Make, tmp_path: Path) -> None:
    annotator = make([[("README", b"no sample")]])
    assert annotator.annotate(0).images.inputs == 0
    assert rows(tmp_path / "out") == []


def test_drop_empty_filters_images_without_regions(make: Make, tmp_path: Path) -> None:
    make([members("a"), members("b", boxes=())], drop_empty=True).annotate(0)
    assert image_rows(tmp_path / "out") == [("a", None), ("b", "no_regions")]


def test_keys_go_to_the_split_that_their_hash_says(make: Make, tmp_path: Path) -> None:
    keys = [f"k{index}" for index in range(12)]
    make([members(key) for key in keys], val_fraction=0.5).annotate(0)
    is_val = {key: key_fraction(key, "val") < 0.5 for key in keys}
    assert 0 < sum(is_val.values()) < 12
    for shard, wanted in (("train-000000", False), ("val-000000", True)):
        assert [key for key, _ in image_rows(tmp_path / "out", shard)] == [key for key in keys if is_val[key] is wanted]


def test_two_pools_write_what_one_pool_writes(make: Make, tmp_path: Path) -> None:
    make(MIXED, "one", proposer=FakeProposer(bad_keys=["g"])).annotate(0)
    two = make(MIXED, "two", proposer=FakeProposer(bad_keys=["g"]), captioner=None)
    two.propose(0)
    assert proposals_file.exists(two.plan.storage, 0)
    replace(two, proposer=None, captioner=Rule(RuleConfig())).caption(0)
    proposals_file.remove(two.plan.storage, 0)
    (tmp_path / "two" / "_proposals").rmdir()
    assert digests(tmp_path / "two") == digests(tmp_path / "one")


@pytest.mark.parametrize("change", ["gone", "other image", "new sample", "tar gone"])
def test_a_source_that_changes_between_two_pools_gives_dead_rows_that_balance(
    make: Make, tmp_path: Path, change: str
) -> None:
    two = make([members("a"), members("b"), members("c")], captioner=None)
    two.propose(0)
    tar = tmp_path / "source" / "00000.tar"
    changed = {
        "gone": [members("a"), members("c")],
        "other image": [members("a"), members("b", image=jpeg(9)), members("c")],
        "new sample": [members("a"), members("b"), members("d"), members("c")],
    }
    tar.unlink()
    if change in changed:
        write_tar(tar, changed[change])
    replace(two, proposer=None, captioner=Rule(RuleConfig())).caption(0)
    assert (
        image_rows(tmp_path / "out")
        == {
            "gone": [("a", None), ("c", None)],
            "other image": [("a", None), ("b", "missing"), ("c", None)],
            "new sample": [("a", None), ("b", None), ("d", "missing"), ("c", None)],
            "tar gone": [("00000-missing", "missing")],
        }[change]
    )
    (marker,) = read_markers(tmp_path / "out")
    assert marker.images.balanced
    assert marker.regions.balanced


def test_doing_a_unit_again_changes_nothing(make: Make, tmp_path: Path) -> None:
    annotator = make(MIXED)
    annotator.annotate(0)
    before = digests(tmp_path / "out")
    annotator.annotate(0)
    assert digests(tmp_path / "out") == before


def test_a_shard_that_does_not_balance_is_not_committed(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    select = annotate.select
    monkeypatch.setattr(annotate, "select", lambda *arguments, **named: select(*arguments, **named)[1:])
    annotator = make([members("a")])
    before = digests(tmp_path / "out")
    with pytest.raises(BalanceError, match=r"train-000000: regions: .* do not balance"):
        annotator.annotate(0)
    assert digests(tmp_path / "out") == before


def test_an_error_of_the_store_leaves_no_attempt(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*arguments: Any) -> bool:
        raise OSError("the store is away")

    annotator = make([members("a")])
    before = digests(tmp_path / "out")
    monkeypatch.setattr("pipeline.write.shards.commit", failing)
    with pytest.raises(OSError, match="the store is away"):
        annotator.annotate(0)
    assert digests(tmp_path / "out") == before
    monkeypatch.setattr("pipeline.write.shards.commit", commit)
    annotator.annotate(0)
    assert image_rows(tmp_path / "out") == [("a", None)]


@pytest.mark.parametrize("nth", range(3))
def test_a_disk_that_is_full_at_any_file_leaves_no_attempt(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nth: int
) -> None:
    annotator = make([members("a")])
    before = digests(tmp_path / "out")
    writev, calls = os.writev, itertools.count()

    def full(descriptor: int, block: Sequence[bytes]) -> int:
        if next(calls) == nth:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return writev(descriptor, block)

    monkeypatch.setattr(os, "writev", full)
    with pytest.raises(OSError, match="No space"):
        annotator.annotate(0)
    assert digests(tmp_path / "out") == before


def test_settings_reach_the_selection(make: Make, tmp_path: Path) -> None:
    make([members("a")], select=SelectSettings(max_regions=1)).annotate(0)
    reasons = sorted(row["reason"] or "" for row in rows(tmp_path / "out") if row["region_id"])
    assert reasons == ["", "over_limit", "overlap", "small"]


numbers = st.floats(width=32, allow_nan=True, allow_infinity=True)
proposals = st.lists(
    st.tuples(st.tuples(numbers, numbers, numbers, numbers), numbers, st.none() | st.text(max_size=5)), max_size=4
)
drops = st.builds(
    Drop,
    reason=st.sampled_from(Reason),
    stage=st.sampled_from(Stage),
    message=st.text(max_size=20),
    traceback_hash=st.none() | st.just("0123456789abcdef"),
)


@settings(max_examples=50)
@given(outcomes=st.lists(proposals | drops, max_size=5))
def test_a_sidecar_gives_back_exactly_what_it_was_given(outcomes: list[Any]) -> None:
    storage = open_storage("memory://sidecars")
    keys = [f"k{index % 3}" for index in range(len(outcomes))]  # a repeated key is one of those that are dropped

    def samples() -> list[Sample]:
        items = [SourceItem(key=key, index=index, uri=key, data=None) for index, key in enumerate(keys)]
        return [Sample(item=item) for item in items]

    wanted = samples()
    for sample, outcome in zip(wanted, outcomes, strict=True):
        if isinstance(outcome, Drop):
            sample.drop = outcome
        else:
            sample.proposals = _proposals(outcome)
    proposals_file.save(storage, 3, iter(wanted), provenance={"name": "fake"})
    loaded = list(proposals_file.load(storage, 3).given_to(samples()))
    assert [sample.drop for sample in loaded] == [sample.drop for sample in wanted]
    for found, given_ in zip(loaded, wanted, strict=True):
        assert (found.proposals is None) == (given_.proposals is None)
        if found.proposals is not None and given_.proposals is not None:
            assert found.proposals.boxes.tobytes() == given_.proposals.boxes.tobytes()
            assert found.proposals.scores.tobytes() == given_.proposals.scores.tobytes()
            assert (found.proposals.boxes.shape, found.proposals.labels) == (
                given_.proposals.boxes.shape,
                given_.proposals.labels,
            )


def _proposals(listed: list[Any]) -> Proposals:
    boxes = np.array([box for box, _, _ in listed], np.float32).reshape(-1, 4)
    scores = np.array([score for _, score, _ in listed], np.float32)
    return Proposals(boxes=boxes, scores=scores, labels=tuple(label for _, _, label in listed))
