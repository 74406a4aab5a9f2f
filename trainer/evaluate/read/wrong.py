"""Wrong captions for `--task attributes`, made from the right ones of a data set."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from schemas.hashes import text_hash
from schemas.word_changes import Change, Vocabulary
from trainer.evaluate.truth import Alternatives


def wrong_captions(captions: Sequence[str | None], labels: Sequence[str | None], *, most: int) -> Alternatives | None:
    """Return wrong captions of R regions, `most` of a kind for each; None where no word can be changed.

    Where there are more, those are taken that a hash of right and wrong caption puts first: the same in every run.
    """
    words = Vocabulary.of(
        (caption for caption in captions if caption is not None), (label for label in labels if label is not None)
    )
    made: dict[str, list[Change]] = {}
    for caption in captions:
        if caption is not None and caption not in made:
            made[caption] = _some(caption, words.changes(caption), most)
    changes = [[] if caption is None else made[caption] for caption in captions]
    flat = [change for mine in changes for change in mine]
    if not flat:
        return None
    start = np.concatenate([[0], np.cumsum([len(mine) for mine in changes])]).astype(np.int64)
    return Alternatives(
        start=start, captions=[change.caption for change in flat], kinds=[change.kind for change in flat]
    )


def _some(caption: str, changes: Sequence[Change], most: int) -> list[Change]:
    by_kind: dict[str, list[Change]] = defaultdict(list)
    for change in sorted(changes, key=lambda change: text_hash(f"{caption}\n{change.caption}")):
        by_kind[change.kind].append(change)
    return [change for kind in sorted(by_kind) for change in by_kind[kind][:most]]
