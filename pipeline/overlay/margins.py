"""How well captions fit their regions, and by how much better than others would: arithmetic on features alone.

    margin in the image     the score less that of the best of the image's other captions
    margin in the sample    the score less that of the best of a sample of the data's captions

A caption that says the same as the region's own (`hashes.text_hash`) is no rival.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.overlay.encoded import Encoded
from pipeline.overlay.encoder import Features
from schemas.hashes import text_hash

_STEP = 2.0**-14
"""Scores are multiples of this, 0.00006: the last digits differ between machines."""

Numbers = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Rivals:
    """Captions of the data that each region's own is compared with."""

    texts: Sequence[str]
    features: Features
    """`[K, D]`."""
    hashes: npt.NDArray[np.str_]
    """`[K]`, as `Encoded.text_hashes`."""

    @classmethod
    def of(cls, texts: Sequence[str], features: Features) -> "Rivals":
        """Return texts with their features (`[K, D]`) as rivals."""
        return cls(texts=texts, features=features, hashes=np.array([text_hash(text) for text in texts], dtype=np.str_))


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Of each region; NaN where there is none: no caption, or no rival."""

    clip_score: Numbers
    """`[R]` float32, a cosine."""
    margin_in_image: Numbers
    """`[R]` float32."""
    margin_in_sample: Numbers
    """`[R]` float32."""


def scores_of(encoded: Encoded, rivals: Rivals) -> Scores:
    """Return the scores of the regions of a shard, of all in `encoded.ids`."""
    columns = [np.full(len(encoded.seen), np.nan, dtype=np.float32) for _ in range(3)]
    captioned = encoded.text_of >= 0
    rows = np.flatnonzero(encoded.seen)[captioned]
    if len(rows):
        regions, text_of = encoded.regions[captioned], encoded.text_of[captioned]
        own = np.einsum("rd,rd->r", regions, encoded.texts[text_of])
        found = (
            own,
            own - _best_in_sample(regions, encoded.text_hashes[text_of], rivals),
            own - _best_in_image(regions, text_of, encoded, captioned),
        )
        for column, values in zip((columns[0], columns[2], columns[1]), found, strict=True):
            column[rows] = np.round(values / _STEP) * _STEP
    return Scores(clip_score=columns[0], margin_in_image=columns[1], margin_in_sample=columns[2])


def _best_in_sample(regions: Features, own_hashes: npt.NDArray[np.str_], rivals: Rivals) -> Numbers:
    if not len(rivals.texts):
        return np.full(len(regions), np.nan, dtype=np.float32)
    fit = np.where(own_hashes[:, None] == rivals.hashes[None, :], -np.inf, regions @ rivals.features.T)
    return _finite(fit.max(axis=1))


def _best_in_image(
    regions: Features, text_of: npt.NDArray[np.int64], encoded: Encoded, captioned: npt.NDArray[np.bool_]
) -> Numbers:
    best = np.full(len(regions), np.nan, dtype=np.float32)
    image_of = encoded.image_of[captioned]
    order = np.argsort(image_of, kind="stable")
    for members in np.split(order, np.flatnonzero(np.diff(image_of[order])) + 1):
        others = np.unique(text_of[members])
        fit = regions[members] @ encoded.texts[others].T
        equal = encoded.text_hashes[text_of[members]][:, None] == encoded.text_hashes[others][None, :]
        best[members] = _finite(np.where(equal, -np.inf, fit).max(axis=1))
    return best


def _finite(values: npt.NDArray[np.floating]) -> Numbers:
    return np.where(np.isfinite(values), values, np.nan).astype(np.float32)
