"""Scores and margins, by hand: who is a rival, and who is none."""

import numpy as np
import pyarrow as pa
import pytest

from pipeline.overlay.encoded import Encoded
from pipeline.overlay.margins import Rivals, scores_of
from pipeline.overlay.rivals import sample_captions
from schemas.hashes import text_hash

RED, ALSO_RED, BLUE = "a red star", "A red star.", "a blue ring"


def unit(*angles: float) -> np.ndarray:
    """Features in the plane, at these angles in degrees."""
    radians = np.deg2rad(angles)
    return np.stack([np.cos(radians), np.sin(radians)], axis=1).astype(np.float32)


def encoded(texts: list[str], *, regions: np.ndarray, text_of: list[int], image_of: list[int]) -> Encoded:
    angles = {RED: 0.0, ALSO_RED: 10.0, BLUE: 90.0}
    num = len(regions)
    return Encoded(
        ids=pa.table({"key": ["k"] * num, "region_id": [str(n) for n in range(num)]}),
        seen=np.ones(num, dtype=np.bool_),
        regions=regions,
        texts=unit(*(angles[text] for text in texts)),
        text_of=np.array(text_of),
        text_hashes=np.array([text_hash(text) for text in texts], dtype=np.str_),
        image_of=np.array(image_of),
        num_cut=0,
    )


def rivals(*texts: str) -> Rivals:
    angles = {RED: 0.0, BLUE: 90.0}
    return Rivals.of(list(texts), unit(*(angles[text] for text in texts)))


def test_a_margin_is_the_score_less_the_best_rivals() -> None:
    # The second region shows what the first's caption says, and is captioned with the other's: a swap.
    scores = scores_of(encoded([RED, BLUE], regions=unit(0, 0), text_of=[0, 1], image_of=[0, 0]), rivals(RED, BLUE))
    assert scores.clip_score.tolist() == pytest.approx([1.0, 0.0], abs=1e-4)
    assert scores.margin_in_image.tolist() == pytest.approx([1.0, -1.0], abs=1e-4)
    assert scores.margin_in_sample.tolist() == pytest.approx([1.0, -1.0], abs=1e-4)


def test_equal_texts_are_no_rivals() -> None:
    shard = encoded([RED, ALSO_RED], regions=unit(10, 10), text_of=[0, 1], image_of=[0, 0])
    scores = scores_of(shard, rivals(RED))
    assert np.isnan(scores.margin_in_image).all(), "its only other caption says the same"
    assert np.isnan(scores.margin_in_sample).all()
    assert scores.clip_score[0] < scores.clip_score[1], "each is scored by its own words"


def test_captions_of_other_images_are_no_rivals_in_the_image() -> None:
    shard = encoded([RED, BLUE], regions=unit(0, 90), text_of=[0, 1], image_of=[0, 1])
    scores = scores_of(shard, rivals())
    assert np.isnan(scores.margin_in_image).all()
    assert np.isnan(scores.margin_in_sample).all(), "a sample of none"


def test_a_region_without_a_caption_has_no_score_and_takes_none_away() -> None:
    shard = encoded([RED, BLUE], regions=unit(0, 45, 90), text_of=[0, -1, 1], image_of=[0, 0, 0])
    scores = scores_of(shard, rivals(BLUE))
    assert np.isnan([scores.clip_score[1], scores.margin_in_image[1], scores.margin_in_sample[1]]).all()
    assert scores.margin_in_image[[0, 2]].tolist() == pytest.approx([1.0, 1.0], abs=1e-4)
    assert np.isnan(scores.margin_in_sample[2])


def test_nothing_at_all_is_scored_as_nothing() -> None:
    shard = encoded([], regions=np.zeros((0, 0), np.float32), text_of=[], image_of=[])
    assert len(scores_of(shard, rivals(RED)).clip_score) == 0


def captions(*texts: str) -> pa.Table:
    return pa.table({"caption": list(texts), "text_hash": [text_hash(text) for text in texts]})


def test_the_sample_depends_on_the_seed_and_not_on_the_shards() -> None:
    words = [f"thing {number}" for number in range(200)]
    whole = sample_captions([captions(*words)], num=20, seed=1)
    assert sample_captions([captions(*words[150:]), captions(*words[:150], *words[:50])], num=20, seed=1) == whole
    assert len(whole) == len({text_hash(text) for text in whole}) == 20
    assert set(sample_captions([captions(*words)], num=20, seed=2)) != set(whole)


def test_texts_that_say_the_same_are_one_of_the_sample() -> None:
    assert sample_captions([captions(RED), captions(ALSO_RED, BLUE)], num=9, seed=0) in (
        [ALSO_RED, BLUE],
        [BLUE, ALSO_RED],
    )
    assert sample_captions([captions()], num=9, seed=0) == []
