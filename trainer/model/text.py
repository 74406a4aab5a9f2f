"""The texts of a batch: features from the cache where the text tower is frozen, tokens where it is trained."""

from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor, nn

from trainer.data.index import SampleIndex
from trainer.errors import InterruptedRunError
from trainer.loss.gather import exchange_counts, rank, world_size
from trainer.model.open import LoadedModel, Tokenize
from trainer.model.student import encode_text
from trainer.model.text_cache import TextCache, fill

_PORTION = 1 << 16
"""Texts that are Python strings at a time."""
_ENCODE_TEXTS = 256
"""Texts embedded at a time."""


def text_parameters(clip: nn.Module) -> list[nn.Parameter]:
    """Return the text tower's parameters: all but the vision tower's and the temperature's."""
    others = ("visual.", "logit_scale", "logit_bias")
    return [parameter for name, parameter in clip.named_parameters() if not name.startswith(others)]


def embed_texts(model: LoadedModel, texts: Sequence[str], device: torch.device) -> Tensor:
    """Return `[T, D]` float32 normalised features of texts, on the host."""
    portions = [list(texts[first : first + _ENCODE_TEXTS]) for first in range(0, len(texts), _ENCODE_TEXTS)]
    with torch.inference_mode():
        features = [encode_text(model.clip, model.tokenize(portion).to(device)) for portion in portions]
        return torch.cat(features).float().cpu()


def tower_fingerprint(model: LoadedModel) -> str:
    """Return the sha256 of the text tower: its tensors by name, and what its tokenizer does."""
    digest = sha256(model.tokenizer_fingerprint().encode())
    for name, tensor in sorted(model.clip.state_dict().items()):
        if not name.startswith(("visual.", "logit_")):
            digest.update(f"{name} {tuple(tensor.shape)}\n".encode())
            digest.update(tensor.detach().cpu().float().numpy().tobytes())
    return digest.hexdigest()


class FrozenText:
    """Features of every text of an index, from a cache that was filled first."""

    def __init__(
        self,
        index: SampleIndex,
        model: LoadedModel,
        cache_folder: str,
        *,
        device: torch.device,
        images: bool = True,
        regions: bool = True,
        watch: Callable[[int, int], None] = lambda done, total: None,
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        """Embed what the cache lacks, each process its share. All processes must call it.

        `images` and `regions` say whose captions are looked at. `watch` is told how many of how many texts are done.
        Raises InterruptedRunError where any process is `stopping`.
        """
        texts, caption_at, region_at = _distinct(index, images, regions)
        digests = _digests(texts)
        dim = embed_texts(model, [""], device).shape[1]
        self._cache = TextCache(cache_folder, tower=tower_fingerprint(model), dim=dim)
        done = fill(
            self._cache,
            digests,
            lambda positions: cast(list[str], texts.take(pa.array(positions)).to_pylist()),
            lambda missing: embed_texts(model, missing, device).numpy(),
            rank=rank(),
            world_size=world_size(),
            watch=lambda done: watch(done, -(-len(texts) // world_size())),
            stopping=stopping,
        )
        if not all(row[0] for row in exchange_counts([int(done)], device)):
            raise InterruptedRunError("interrupted before the first step; the same command goes on from there")
        self._cache.refresh()
        rows = self._cache.rows(digests)
        self._caption_rows, self._region_rows = rows[caption_at], rows[region_at]

    def features(self, caption_index: Tensor, region_index: Tensor) -> tuple[Tensor, Tensor]:
        """Return `[c, D]` and `[n, D]` float32 features of captions of images and of those of regions, on the host."""
        pairs = ((caption_index, self._caption_rows), (region_index, self._region_rows))
        image, region = (torch.from_numpy(self._cache.features(rows[index.numpy()])) for index, rows in pairs)
        return image, region


def _distinct(
    index: SampleIndex, images: bool, regions: bool
) -> tuple[pa.Array, npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the distinct texts, and where each caption of images and of regions is among them."""
    if not images and not regions:
        return pa.array([], pa.string()), np.zeros(0, np.int64), np.zeros(0, np.int64)
    num_captions = len(index.image_captions) if images else 0
    chunks = (index.image_captions.chunks if images else []) + (index.region_captions.chunks if regions else [])
    encoded = pa.chunked_array(chunks, type=pa.string()).dictionary_encode().unify_dictionaries()
    at = np.concatenate([chunk.indices.to_numpy().astype(np.int64) for chunk in encoded.chunks])
    return encoded.chunk(0).dictionary, at[:num_captions], at[num_captions:]


def _digests(texts: pa.Array) -> npt.NDArray[Any]:
    """Return `[T, 32]` uint8: `hashes.text_sha256` of each text, as bytes."""
    portions = (texts.slice(first, _PORTION).to_pylist() for first in range(0, len(texts), _PORTION))
    digests = (sha256(text.encode("utf-8", "surrogatepass")).digest() for portion in portions for text in portion)
    return np.frombuffer(b"".join(digests), dtype=np.uint8).reshape(-1, 32)


class TrainedText:
    """Tokens of texts, for a text tower that is trained."""

    def __init__(self, index: SampleIndex, tokenize: Tokenize) -> None:
        """Read captions from `index`."""
        self._index, self._tokenize = index, tokenize
        self._length = tokenize([""]).shape[1]

    def tokens(self, caption_index: Tensor, region_index: Tensor) -> tuple[Tensor, Tensor]:
        """Return `[c, L]` and `[n, L]` int64 tokens of captions of images and of those of regions, on the host."""
        pairs = ((self._index.image_captions, caption_index), (self._index.region_captions, region_index))
        texts = [column.take(pa.array(index.numpy())).to_pylist() for column, index in pairs]
        image, region = (
            self._tokenize(of_kind) if of_kind else torch.zeros(0, self._length, dtype=torch.int64) for of_kind in texts
        )
        return image, region
