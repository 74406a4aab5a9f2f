"""A captioner that sees no pictures is told by its answers, before the run and in it; what it sees decides nothing."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest

from pipeline.caption.base import Watched
from pipeline.caption.judge import Judge, check_sees
from pipeline.caption.rule import Rule, RuleConfig
from pipeline.errors import ConstantCaptionsError, WorkError
from pipeline.sample import Caption, Crop, Drop, RegionCaption
from schemas.reasons import Reason, Stage


@dataclass(frozen=True, kw_only=True)
class FakeConfig(Watched):
    unfinished: str = "dead"
    batch_size: int = 3


class FakeModel(Rule):
    """Answers by a function of the crop; it has the settings of a captioner that is a model."""

    def __init__(self, answer: Callable[[Crop], Caption | Drop], **settings: object) -> None:
        super().__init__(RuleConfig())
        self.config = FakeConfig(**settings)  # type: ignore[arg-type]
        self.batch_size = 3
        self._answer = answer
        self.asked = 0

    def caption(self, crops: Sequence[Crop], prompts: Sequence[str | None]) -> list[Caption | Drop]:  # type: ignore[override]
        assert len(crops) <= self.batch_size
        self.asked += len(crops)
        return [self._answer(crop) for crop in crops]


def says(text: str, unfinished: str | None = None) -> Callable[[Crop], Caption | Drop]:
    return lambda _: Caption(text=text, score=None, unfinished=unfinished)


def sees(crop: Crop) -> Caption:
    return Caption(text=f"a picture of mean {crop.pixels.mean():.6f}", score=None)


def crop(number: int) -> Crop:
    pixels = np.random.default_rng(number).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return Crop(region_id=f"{number:016x}", pixels=pixels, box=(0, 0, 5, 4), image_width=9, image_height=9, label=None)


def judged(model: Rule, crops: Sequence[Crop], keys: Sequence[str] = ("a", "b")) -> list[RegionCaption]:
    judge = Judge(model)
    answers = (
        model.caption(crops, [None] * len(crops)) if not isinstance(model, FakeModel) else map(model._answer, crops)
    )
    return [
        judge.region_caption(keys[index % len(keys)], one, answer)
        for index, (one, answer) in enumerate(zip(crops, answers, strict=True))
    ]


CROPS = [crop(number) for number in range(200)]


@pytest.mark.parametrize("text", ["ok", "", "I cannot see any image.", "a a a a a"])
def test_one_answer_to_many_different_crops_ends_the_run(text: str) -> None:
    assert len(judged(FakeModel(says(text)), CROPS[:199])) == 199
    with pytest.raises(ConstantCaptionsError, match=r"200 crops .*allow-constant") as raised:
        judged(FakeModel(says(text)), CROPS)
    assert raised.value.exit_code == 7


def test_it_counts_over_units_and_starts_again_with_another_answer() -> None:
    judge = Judge(FakeModel(sees))
    same = Caption(text="ok", score=None)
    for one in CROPS[:150]:
        judge.region_caption("a", one, same)
    judge.region_caption("a", CROPS[150], replace(same, text="no"))
    for one in CROPS[:199]:
        judge.region_caption("b", one, same)
    with pytest.raises(ConstantCaptionsError):
        for one in (CROPS[199], crop(200)):
            judge.region_caption("c", one, same)


def test_equal_pixels_one_image_or_other_answers_are_no_sign() -> None:
    ok = FakeModel(says("ok"))
    assert len(judged(ok, CROPS[:150] * 4)) == 600
    assert len(judged(ok, [crop(number) for number in range(300)], keys=["a"])) == 300
    assert len(judged(FakeModel(sees), [crop(number) for number in range(300)])) == 300


def test_who_says_so_may_say_the_same_and_a_rule_may_always() -> None:
    assert len(judged(FakeModel(says("ok"), allow_constant=True), CROPS)) == 200
    grey = [replace(one, pixels=np.full((4, 5, 3), 100 + number % 2, np.uint8)) for number, one in enumerate(CROPS)]
    assert len(judged(Rule(RuleConfig()), grey)) == 200


def test_drops_of_the_captioner_are_no_answers() -> None:
    drop = Drop(reason=Reason.MODEL_ERROR, stage=Stage.CAPTION, message="refused")
    assert all(one.drop == drop for one in judged(FakeModel(lambda _: drop), [crop(number) for number in range(300)]))


@pytest.mark.parametrize("unfinished", ["dead", "keep"])
def test_an_answer_cut_short_is_what_the_setting_says(unfinished: str) -> None:
    (one,) = judged(FakeModel(says("a dog on", "cut"), unfinished=unfinished), CROPS[:1])
    if unfinished == "keep":
        assert (one.text, one.drop) == ("a dog on", None)
    else:
        assert one.drop is not None
        assert one.drop.reason is Reason.UNFINISHED


def test_a_captioner_that_sees_is_asked_about_two_pictures() -> None:
    model = FakeModel(sees)
    check_sees(model)
    assert model.asked == 2


@pytest.mark.parametrize("text", ["ok", "I cannot see any image."])
def test_a_blind_captioner_is_told_before_the_run(text: str) -> None:
    model = FakeModel(says(text))
    with pytest.raises(ConstantCaptionsError, match=rf"{text}.* 10 test pictures"):
        check_sees(model)
    check_sees(FakeModel(says(text), allow_constant=True))


def test_two_pictures_alike_to_a_captioner_that_sees_do_not_end_the_run() -> None:
    asked = 0

    def seldom(crop: Crop) -> Caption:
        nonlocal asked
        asked += 1
        return Caption(text="a dog" if asked < 6 else "a cat", score=None)

    check_sees(FakeModel(seldom))
    assert asked == 10


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (says(""), "empty_caption"),
        (says("<think>hm", "cut"), "unfinished"),
        (lambda crop: replace(sees(crop), unfinished="cut"), "unfinished"),
        (lambda crop: Drop(reason=Reason.MODEL_ERROR, stage=Stage.CAPTION, message="no images here"), "no images here"),
    ],
)
def test_a_captioner_without_a_caption_for_any_picture_is_told_before_the_run(
    answer: Callable[[Crop], Caption | Drop], reason: str
) -> None:
    with pytest.raises(WorkError, match=rf"no caption of any of 10 test pictures: .*{reason}"):
        check_sees(FakeModel(answer))


def test_filters_are_answers() -> None:
    low = Drop(reason=Reason.LOW_CONFIDENCE, stage=Stage.CAPTION, message="unsure")
    check_sees(FakeModel(lambda _: low))
