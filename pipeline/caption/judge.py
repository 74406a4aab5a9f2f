"""What becomes of a captioner's answers, and when a captioner sees no pictures.

A server whose model takes no images answers all the same, and always the same. So a captioner that is a model is asked
about a few pictures that differ before the run, and its answers are watched: they end a run, and decide no caption.
"""

import hashlib
from collections.abc import Sequence
from itertools import islice

from pipeline.caption.base import Captioner
from pipeline.caption.normalise import finished
from pipeline.errors import ConstantCaptionsError, WorkError
from pipeline.models.batches import Batcher
from pipeline.sample import Caption, Crop, Drop, RegionCaption
from schemas.reasons import STATUS_OF, Stage, Status

_CROPS, _IMAGES = 200, 2
"""So many crops of different pixels, of so many images or more, with one answer in a row tell of a blind model."""
_FIRST, _MOST = 2, 8
"""Pictures asked about before a run, and how many more where these have not told that the model sees."""
_REMEDY = (
    "it does not see the pictures. Give it a model that takes images (some servers leave them out without a word), or "
    "--caption.allow-constant true where one answer is right"
)


class Judge:
    """Says what becomes of each answer of a captioner, over all the units of a worker."""

    def __init__(self, captioner: Captioner) -> None:
        self._name, self._prompt = captioner.name, captioner.prompt
        self._keeps_unfinished = getattr(captioner.config, "unfinished", "keep") == "keep"
        self._watches = not getattr(captioner.config, "allow_constant", True)
        self._last = ""
        self._images: set[str] = set()
        self._crops: set[bytes] = set()

    def region_caption(self, key: str, crop: Crop, answer: Caption | Drop) -> RegionCaption:
        """Return what becomes of the answer about a crop of the image `key`.

        Raises ConstantCaptionsError where it is one too many of the same.
        """
        if self._watches and isinstance(answer, Caption):
            self._watch(key, crop, answer.text)
        outcome = finished(answer, self._prompt, keeps_unfinished=self._keeps_unfinished)
        if isinstance(outcome, Drop):
            return RegionCaption(drop=outcome)
        return RegionCaption(text=outcome.text, score=outcome.score)

    def _watch(self, key: str, crop: Crop, text: str) -> None:
        if text != self._last:
            self._last = text
            self._images, self._crops = set(), set()
        if len(self._images) < _IMAGES:
            self._images.add(key)
        if len(self._crops) < _CROPS:
            size = str(crop.pixels.shape).encode()
            self._crops.add(hashlib.blake2b(size + crop.pixels.tobytes(), digest_size=16).digest())
        if len(self._crops) >= _CROPS and len(self._images) >= _IMAGES:
            raise ConstantCaptionsError(
                f"{self._name} answered {text[:200]!r} to {_CROPS} crops in a row, all of different pixels, of several "
                f"images: {_REMEDY}; nothing of this shard was kept"
            )


def check_sees(captioner: Captioner) -> None:
    """Ask about a few golden pictures that differ, more of them where all get the same answer or none a caption.

    Captioners without the setting `allow_constant` are not asked, nor those who may say the same. Raises
    ConstantCaptionsError, and WorkError where none of the answers is a caption.
    """
    if getattr(captioner.config, "allow_constant", True):
        return
    from pipeline.golden.pictures import golden_crops  # which reads and decodes pictures: not where nobody is asked

    by_image = {crop.region_id.rsplit("/", 1)[0]: crop for crop in golden_crops()}
    photographs_and_scenes = [*by_image.values()][::-1]
    judge = Judge(captioner)
    answers: list[Caption | Drop] = []
    outcomes: list[RegionCaption] = []
    crops = iter(photographs_and_scenes)
    for count in (_FIRST, _MOST):
        for crop, answer in _asked(captioner, [*islice(crops, count)]):
            answers.append(answer)
            outcomes.append(judge.region_caption("golden", crop, answer))
        drops = [outcome.drop for outcome in outcomes if outcome.drop and STATUS_OF[outcome.drop.reason] is Status.DEAD]
        texts = {answer.text for answer in answers if isinstance(answer, Caption)}
        if len(drops) < len(outcomes) and len(texts) != 1:
            return
    if len(drops) == len(outcomes):
        raise WorkError(
            f"{captioner.name} gave no caption of any of {len(outcomes)} test pictures: {drops[0].reason.value}: "
            f"{drops[0].message}"
        )
    if len(texts) == 1 and all(isinstance(answer, Caption) for answer in answers):
        raise ConstantCaptionsError(
            f"{captioner.name} answered {texts.pop()[:200]!r} to {len(answers)} test pictures, all different: {_REMEDY}"
        )


def _asked(captioner: Captioner, crops: Sequence[Crop]) -> Sequence[tuple[Crop, Caption | Drop]]:
    batcher: Batcher[Crop, Caption] = Batcher(
        lambda batch: captioner.caption(batch, [captioner.prompt] * len(batch)),
        name=captioner.name,
        stage=Stage.CAPTION,
        batch_size=captioner.batch_size,
    )
    return [*batcher.run(crops)]
