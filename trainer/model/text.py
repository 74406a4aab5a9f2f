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
        negatives: bool = False,
        watch: Callable[[int, int], None] = lambda done, total: None,
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        """Embed what the cache lacks, each process its share. All processes must call it.

        `images`, `regions` and `negatives` say whether captions of images, those of regions and hard negatives are
        looked at. `watch` is told how many of how many texts are done. Raises InterruptedRunError where any process is
        `stopping`.
        """
        columns = [
            index.image_captions if images else None,
            index.region_captions if regions else None,
            index.negatives if negatives else None,
        ]
        texts, places = _distinct([column for column in columns if column is not None])
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
        left = iter(places)
        nothing = np.zeros(0, np.int64)
        self._rows = [nothing if column is None else rows[next(left)] for column in columns]

    def features(self, indices: Sequence[Tensor]) -> list[Tensor]:
        """Return `[n, D]` float32 features for each of the three `indices`, on the host.

        They are rows of the index's captions of images, captions of regions, and hard negatives.
        """
        pairs = zip(indices, self._rows, strict=True)
        return [torch.from_numpy(self._cache.features(rows[index.numpy()])) for index, rows in pairs]


def _distinct(columns: Sequence[pa.ChunkedArray]) -> tuple[pa.Array, list[npt.NDArray[np.int64]]]:
    """Return the distinct texts of columns, and where each row of each column is among them."""
    chunks = [chunk for column in columns for chunk in column.chunks]
    if not chunks:
        return pa.array([], pa.string()), [np.zeros(0, np.int64) for _ in columns]
    encoded = pa.chunked_array(chunks, type=pa.string()).dictionary_encode().unify_dictionaries()
    at = np.concatenate([chunk.indices.to_numpy().astype(np.int64) for chunk in encoded.chunks])
    ends = np.cumsum([len(column) for column in columns])
    return encoded.chunk(0).dictionary, np.split(at, ends[:-1])


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

    def tokens(self, indices: Sequence[Tensor]) -> list[Tensor]:
        """Return `[n, L]` int64 tokens for each of the three `indices`, as `FrozenText.features` has them."""
        index = self._index
        columns = (index.image_captions, index.region_captions, index.negatives)
        pairs = zip(columns, indices, strict=True)
        texts = [column.take(pa.array(rows.numpy())).to_pylist() if len(rows) else [] for column, rows in pairs]
        nothing = torch.zeros(0, self._length, dtype=torch.int64)
        return [self._tokenize(of_kind) if of_kind else nothing for of_kind in texts]
