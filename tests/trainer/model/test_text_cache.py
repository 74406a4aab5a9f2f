"""The cache of text features: each text once, to the same bits, under several processes and after a kill."""

import multiprocessing
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from schemas.dataset import Dataset
from schemas.hashes import text_sha256
from tests.trainer.runs import write_data
from tests.trainer.towers import VIT, random_weights
from trainer.data.index import build_index
from trainer.errors import TrainingError
from trainer.hyperparameters import ModelSettings
from trainer.model import text_cache
from trainer.model.open import load_model
from trainer.model.student import encode_text
from trainer.model.text import FrozenText, TrainedText, tower_fingerprint
from trainer.model.text_cache import TextCache, fill

DIM = 3


def digests_of(texts: list[str]) -> np.ndarray:
    return np.array([list(bytes.fromhex(text_sha256(text))) for text in texts], dtype=np.uint8).reshape(-1, 32)


class Encoder:
    """Remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, texts: list[str]) -> np.ndarray:
        self.asked += texts
        return np.array([[len(text), ord(text[-1]), 1.5] for text in texts], dtype=np.float32)


def filled(folder: Path, texts: list[str], encode: Encoder, **place: int) -> TextCache:
    cache = TextCache(folder, tower="t" * 64, dim=DIM)
    fill(cache, digests_of(texts), lambda at: [texts[i] for i in at], encode, **place)
    return cache


def test_each_text_is_embedded_once(tmp_path):
    encode, texts = Encoder(), [f"text {i}" for i in range(20)]
    filled(tmp_path, texts[:12], encode)
    cache = filled(tmp_path, texts, encode)
    assert sorted(encode.asked) == sorted(texts)
    found = cache.features(cache.rows(digests_of(texts)))
    assert np.array_equal(found, Encoder()(texts))
    assert cache.rows(digests_of(["text 99"])).tolist() == [-1]


def test_other_towers_have_other_features(tmp_path):
    filled(tmp_path, ["a"], Encoder())
    assert len(TextCache(tmp_path, tower="u" * 64, dim=DIM)) == 0


def test_a_segment_of_another_width_is_named(tmp_path):
    filled(tmp_path, ["a"], Encoder())
    with pytest.raises(ValueError, match=r"\.npy: a segment"):
        TextCache(tmp_path, tower="t" * 64, dim=DIM + 1)


def test_segments_are_not_held_open(tmp_path, monkeypatch):
    monkeypatch.setattr(text_cache, "SEGMENT_TEXTS", 1)
    texts = [f"text {i}" for i in range(20)]
    before = len(list(Path("/proc/self/fd").iterdir()))
    cache = filled(tmp_path, texts, Encoder())
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert np.array_equal(cache.features(cache.rows(digests_of(texts))), Encoder()(texts))


def test_a_segment_that_was_cut_is_named(tmp_path):
    filled(tmp_path, ["a"], Encoder())
    (path,) = tmp_path.rglob("*.npy")
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(TrainingError, match=rf"{path.name}: .*remove the file"):
        TextCache(tmp_path, tower="t" * 64, dim=DIM)


def test_processes_share_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr(text_cache, "SEGMENT_TEXTS", 4)
    texts, encoders = [f"text {i}" for i in range(18)], [Encoder(), Encoder()]
    for rank, encode in enumerate(encoders):
        # The second was opened before the first began, as processes that start together are.
        filled(tmp_path / str(rank), texts, encode, rank=rank, world_size=2)
    assert sorted(encoders[0].asked + encoders[1].asked) == sorted(texts)
    assert {len(encode.asked) for encode in encoders} == {8, 10}


def _fill_and_die(folder: Path, texts: list[str]) -> None:
    calls = []

    class Dying(Encoder):
        def __call__(self, texts: list[str]) -> np.ndarray:
            calls.append(1)
            if len(calls) == 3:
                os.kill(os.getpid(), signal.SIGKILL)
            return super().__call__(texts)

    filled(folder, texts, Dying())


def test_killed_and_resumed_it_holds_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(text_cache, "SEGMENT_TEXTS", 4)
    texts = [f"text {i}" for i in range(18)]
    process = multiprocessing.get_context("fork").Process(target=_fill_and_die, args=(tmp_path / "found", texts))
    process.start()
    process.join()
    encode = Encoder()
    filled(tmp_path / "found", texts, encode)
    filled(tmp_path / "expected", texts, Encoder())
    assert len(encode.asked) == 10
    found, expected = (sorted((tmp_path / name / ("t" * 32)).glob("*.npy")) for name in ("found", "expected"))
    assert [path.name for path in found] == [path.name for path in expected]
    assert all(a.read_bytes() == b.read_bytes() for a, b in zip(found, expected, strict=True))


def test_features_are_the_tower_s(tmp_path):
    index = build_index(Dataset.open(write_data(tmp_path)), "train")
    model = load_model(ModelSettings(model=VIT))
    random_weights(model.clip)
    frozen = FrozenText(index, model, str(tmp_path / "cache"), device=torch.device("cpu"))
    trained = TrainedText(index, model.tokenize)
    images, regions = torch.tensor([4, 0]), torch.tensor([5, 0, 1])
    none = images[:0]
    image, region, negatives = frozen.features([images, regions, none])
    with torch.no_grad():
        expected = encode_text(model.clip, torch.cat(trained.tokens([images, regions, none])))
    assert torch.allclose(torch.cat([image, region]), expected, atol=1e-3)
    assert (len(image), len(negatives)) == (2, 0)
    assert [tokens.shape for tokens in trained.tokens([none, none, none])] == [(0, 16), (0, 16), (0, 16)]


def test_the_fingerprint_is_the_text_tower_s_alone():
    model = load_model(ModelSettings(model=VIT))
    before = tower_fingerprint(model)
    model.clip.visual.proj.data += 1
    model.clip.logit_scale.data += 1
    assert tower_fingerprint(model) == before
    model.clip.ln_final.weight.data += 1
    assert tower_fingerprint(model) != before
