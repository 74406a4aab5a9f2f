"""The golden set: the same answers pass, changed ones stop, and models without weights are not asked."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pipeline.caption.rule import Rule, RuleConfig
from pipeline.errors import WorkError
from pipeline.golden.answers import (
    Answers,
    GoldenAnswersError,
    GoldenBox,
    KeptAnswers,
    check_models,
)
from pipeline.golden.pictures import golden_crops, golden_images
from pipeline.models.device import CPU
from pipeline.propose.manual import Manual, ManualConfig
from pipeline.sample import Caption, Crop, DecodedImage, Proposals
from pipeline.store.storage import StorageError, open_storage
from schemas.boxes import as_boxes
from tests.builders import read_markers, run

CONFIGURATION = {"proposer": {"name": "manual"}, "captioner": {"name": "rule"}}


class FakeProposer(Manual):
    """The given regions moved by some pixels, as if it had weights."""

    def __init__(self, moved: float = 0.0) -> None:
        super().__init__(ManualConfig())
        self._moved = moved

    def propose(self, images: Sequence[DecodedImage]) -> list[Proposals]:
        given = super().propose(images)
        return [
            Proposals(boxes=as_boxes((one.boxes + self._moved).tolist()), scores=one.scores, labels=one.labels)
            for one in given
        ]

    def provenance(self) -> dict[str, Any]:
        return super().provenance() | {"weights": {"model": "fake"}, "libraries": {"torch": "1"}}


class FakeCaptioner(Rule):
    """The rule, as if it had weights and a library; `suffix` is what another version of it would add."""

    def __init__(self, suffix: str = "", library: str = "1", error: type[Exception] | None = None) -> None:
        super().__init__(RuleConfig())
        self._suffix, self._library, self._error = suffix, library, error

    def caption(self, crops: Sequence[Crop], prompts: Sequence[str | None]) -> list[Caption]:
        if self._error is not None:
            raise self._error("no kernel")
        return [replace(caption, text=caption.text + self._suffix) for caption in super().caption(crops, prompts)]

    def provenance(self) -> dict[str, Any]:
        return super().provenance() | {"weights": {"model": "fake"}, "libraries": {"torch": self._library}}


@pytest.fixture
def kept(tmp_path: Path) -> KeptAnswers:
    return KeptAnswers(dataset=open_storage(str(tmp_path / "out")), cache=open_storage(str(tmp_path / "cache")))


def check(kept: KeptAnswers, proposer: Manual, captioner: Rule, *, allow_new: bool = False) -> None:
    check_models(kept, proposer, captioner, configuration=CONFIGURATION, device=CPU, allow_new=allow_new)


def test_the_golden_set_has_scenes_and_photographs_with_crops_of_each():
    assert [image.key for image in golden_images()][4:] == ["astronaut", "cat", "coffee", "flower", "rocket", "temple"]
    crops = list(golden_crops())
    assert len(crops) > 20
    assert len({crop.region_id for crop in crops}) == len(crops)


def test_equal_answers_pass_again_and_again(kept: KeptAnswers):
    for _ in range(3):
        check(kept, FakeProposer(), FakeCaptioner())


def test_changed_captions_stop_and_show_before_and_after(kept: KeptAnswers):
    check(kept, Manual(ManualConfig()), FakeCaptioner())
    with pytest.raises(GoldenAnswersError) as raised:
        check(kept, Manual(ManualConfig()), FakeCaptioner(" the the the", library="2"))
    message = str(raised.value)
    assert f"rule gives different golden answers than before ({len(list(golden_crops()))} of" in message
    assert ".', now " in message
    assert " the the the'" in message
    assert "libraries before: torch 1; now: torch 2" in message
    assert "--allow-new-answers" in message


def test_allowed_answers_take_the_place_of_the_old_ones(kept: KeptAnswers):
    check(kept, Manual(ManualConfig()), FakeCaptioner())
    check(kept, Manual(ManualConfig()), FakeCaptioner(" new"), allow_new=True)
    check(kept, Manual(ManualConfig()), FakeCaptioner(" new"))
    with pytest.raises(GoldenAnswersError):
        check(kept, Manual(ManualConfig()), FakeCaptioner())


def test_a_new_data_set_is_checked_against_the_user_s_cache(kept: KeptAnswers, tmp_path: Path):
    check(kept, Manual(ManualConfig()), FakeCaptioner())
    other = KeptAnswers(dataset=open_storage(str(tmp_path / "other")), cache=kept.cache)
    with pytest.raises(GoldenAnswersError, match="cache"):
        check(other, Manual(ManualConfig()), FakeCaptioner(" new"))


def test_boxes_may_move_by_the_last_digits_and_no_more(kept: KeptAnswers):
    check(kept, FakeProposer(), Rule(RuleConfig()))
    check(kept, FakeProposer(moved=0.9), Rule(RuleConfig()))
    with pytest.raises(
        GoldenAnswersError,
        match=r"(?s)manual gives different .*\(4 of 10\).*before \[.*now \[",
    ):
        check(kept, FakeProposer(moved=1.2), Rule(RuleConfig()))


def test_a_lost_box_is_a_difference():
    box = GoldenBox((0.0, 0.0, 5.0, 5.0), 0.9, "cat")
    before, after = Answers(boxes={"a": [box, box]}), Answers(boxes={"a": [box]})
    assert msgspec.json.decode(msgspec.json.encode(before), type=Answers) == before
    assert list(before.differences(after)) == [("a", str(box), "nothing")]


def test_all_models_are_compared_before_anything_is_kept(kept: KeptAnswers):
    check(kept, FakeProposer(), FakeCaptioner())
    with pytest.raises(GoldenAnswersError, match=r"(?s)manual gives different.*rule gives different"):
        check(kept, FakeProposer(moved=5), FakeCaptioner(" new"))
    check(kept, FakeProposer(), FakeCaptioner())


def test_answers_that_are_refused_are_not_kept_in_a_new_data_set(kept: KeptAnswers, tmp_path: Path):
    """Else the right answers would be the ones that differ there, once the libraries of before are back."""
    check(kept, FakeProposer(), FakeCaptioner())
    other = KeptAnswers(dataset=open_storage(str(tmp_path / "other")), cache=kept.cache)
    with pytest.raises(GoldenAnswersError):
        check(other, FakeProposer(), FakeCaptioner(" new"))
    check(other, FakeProposer(), FakeCaptioner())


def test_a_data_set_s_own_answers_stand_whatever_the_cache_has_learned(kept: KeptAnswers, tmp_path: Path):
    """One who took new answers for a new data set goes on with the old one by its own libraries."""
    check(kept, FakeProposer(), FakeCaptioner())
    other = KeptAnswers(dataset=open_storage(str(tmp_path / "other")), cache=kept.cache)
    check(other, FakeProposer(), FakeCaptioner(" new"), allow_new=True)
    check(kept, FakeProposer(), FakeCaptioner())
    with pytest.raises(GoldenAnswersError, match="out"):
        check(kept, FakeProposer(), FakeCaptioner(" new"))


def test_the_digest_is_that_of_the_standing_answers(kept: KeptAnswers):
    """Within what may move, workers differ; their shards must not."""
    digests = [
        check_models(kept, FakeProposer(moved), None, configuration=CONFIGURATION, device=CPU, allow_new=False)
        for moved in (0.0, 0.4)
    ]
    assert digests[0] == digests[1]
    assert list(digests[0]) == ["proposer"]


def test_a_model_that_fails_on_one_question_cannot_start(kept: KeptAnswers, tmp_path: Path):
    class OneShort(FakeCaptioner):
        def caption(self, crops: Sequence[Crop], prompts: Sequence[str | None]) -> list[Caption]:
            if any(crop.region_id.startswith("cat/1") for crop in crops):
                raise MemoryError("process 4711 has the memory")
            return super().caption(crops, prompts)

    with pytest.raises(WorkError, match="rule cannot answer the golden set: MemoryError"):
        check(kept, Manual(ManualConfig()), OneShort())
    assert not list(tmp_path.rglob("golden-*"))


def test_damaged_answers_are_named(kept: KeptAnswers, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    check(kept, Manual(ManualConfig()), FakeCaptioner())
    (in_cache,) = (tmp_path / "cache").rglob("golden-*")
    in_cache.write_text("{")
    check(kept, Manual(ManualConfig()), FakeCaptioner())
    assert in_cache.name in caplog.text
    (in_dataset,) = (tmp_path / "out").rglob("golden-*")
    in_dataset.write_text("{")
    with pytest.raises(StorageError, match=in_dataset.name):
        check(kept, Manual(ManualConfig()), FakeCaptioner())


def test_models_that_run_elsewhere_are_not_asked(kept: KeptAnswers, tmp_path: Path):
    class Elsewhere(FakeCaptioner):
        def provenance(self) -> dict[str, Any]:
            return super().provenance() | {"libraries": {"openai": "3"}}

    check(kept, Manual(ManualConfig()), Elsewhere())
    assert not list(tmp_path.rglob("golden-*"))


def test_a_model_that_fails_on_every_golden_question_stops(kept: KeptAnswers):
    with pytest.raises(WorkError, match="rule failed on 8 items in a row"):
        check(kept, Manual(ManualConfig()), FakeCaptioner(error=RuntimeError))


def test_models_without_weights_are_not_asked(kept: KeptAnswers, tmp_path: Path):
    check(kept, Manual(ManualConfig()), Rule(RuleConfig()))
    assert not list(tmp_path.rglob("golden-*"))


def test_a_cache_that_cannot_be_written_is_warned_of(
    kept: KeptAnswers, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    (tmp_path / "file").write_text("no folder")
    broken = KeptAnswers(dataset=kept.dataset, cache=open_storage(str(tmp_path / "file")))
    check(broken, Manual(ManualConfig()), FakeCaptioner())
    assert "cannot keep golden answers" in caplog.text


def test_a_model_that_answers_differently_stops_the_job_before_anything_is_written(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    """Through the real command: the data set keeps other answers of the same weights, as another version gave them."""
    command = ("annotate", "scenes:6?split=test", tmp_path / "out", "--profile", "mini", "--shard-size", "3")
    assert run(*command).code == 0
    for undone in (tmp_path / "out").rglob("train-000001.*"):
        undone.unlink()
    for file in (tmp_path / "out" / "_plan").glob("golden-*.json"):
        answers = msgspec.json.decode(file.read_bytes(), type=Answers)
        changed = msgspec.structs.replace(answers, captions=dict.fromkeys(answers.captions, "a wrong caption"))
        file.write_bytes(msgspec.json.encode(changed))
    stopped = run(*command)
    assert stopped.code == 2
    assert "blip2 gives different golden answers" in stopped.err
    assert "before 'a wrong caption', now 'a " in stopped.err
    assert not (tmp_path / "out" / "train-000001.json").exists()
    assert run(*command, "--allow-new-answers").code == 0
    assert "accepted: blip2 gives different golden answers" in caplog.text
    assert run(*command).code == 0
    for marker in read_markers(tmp_path / "out"):
        assert marker.provenance["captioner"]["golden_answers"] == answers_of("captions", tmp_path / "out").digest()


def answers_of(kind: str, output: Path) -> Answers:
    """What the data set keeps of the model that gave `boxes` or `captions`."""
    kept = [msgspec.json.decode(path.read_bytes(), type=Answers) for path in (output / "_plan").glob("golden-*.json")]
    return next(answers for answers in kept if getattr(answers, kind))
