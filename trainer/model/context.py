"""The length of texts: a text tower for longer ones, and how many captions are cut.

Positions are stretched as Long-CLIP does (Zhang et al., 2024): the first 20, which short captions train well, are kept,
and those after them are spread over the new ones, linearly interpolated, the last ones extrapolated.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor, nn

from trainer.errors import TrainingError

KEPT = 20
"""Positions that stay as they are."""
_SAMPLE = 200_000
"""Most texts that are tokenised to count those that are cut."""
_PORTION = 1024
_MARKS = 2
"""Tokens that stand for the start and the end of a text."""


def stretch_context(clip: nn.Module, length: int) -> None:
    """Give a model's text tower `length` positions, in place.

    Raises TrainingError for fewer than it has, and for text towers that are not CLIP's.
    """
    text = cast(Any, getattr(clip, "text", clip))
    positions = getattr(text, "positional_embedding", None)
    if not isinstance(positions, nn.Parameter) or positions.ndim != 2:
        raise TrainingError(f"--context-length {length}: for models whose text tower is CLIP's")
    own = len(positions)
    if length < own or own <= KEPT + 1:
        raise TrainingError(f"--context-length {length}: the model's own is {own}; give that or more, or leave it out")
    text.positional_embedding = nn.Parameter(stretched(positions.detach(), length))
    text.context_length = length
    cast(Any, clip).context_length = length
    mask = getattr(text, "attn_mask", None)
    if mask is not None:
        longer = torch.full((length, length), -torch.inf, dtype=mask.dtype, device=mask.device).triu_(1)
        text.register_buffer("attn_mask", longer, persistent=False)


def stretched(positions: Tensor, length: int) -> Tensor:
    """Return `[length, C]` positions from `[own, C]`: the first `KEPT` kept, the others spread over the rest."""
    own = len(positions)
    step = (own - KEPT) / (length - KEPT)
    at = KEPT + torch.arange(length - KEPT, dtype=torch.float64) * step
    low = at.floor().long().clamp(max=own - 2)
    share = (at - low)[:, None].to(positions.dtype)
    spread = positions[low] + share * (positions[low + 1] - positions[low])
    return torch.cat([positions[:KEPT], spread])


class Cut(NamedTuple):
    """How many texts do not fit."""

    num_cut: int
    num_texts: int
    is_sample: bool
    """Whether the first number is projected from some of the texts."""


def count_cut(texts: pa.ChunkedArray, tokenizer: Any, length: int) -> Cut:
    """Return how many of `texts` have more than `length` tokens; `tokenizer` is open_clip's.

    A text has at most a token a byte, so most are known to fit; of more than 200,000 others, as many are looked at.
    """
    long = texts.filter(pc.greater(pc.binary_length(texts), length - _MARKS))
    looked_at = np.unique(np.linspace(0, max(len(long) - 1, 0), min(len(long), _SAMPLE)).astype(np.int64))
    num_cut, padding = 0, getattr(getattr(tokenizer, "tokenizer", None), "pad_token_id", None) or 0
    for first in range(0, len(looked_at), _PORTION):
        some: Sequence[str] = long.take(pa.array(looked_at[first : first + _PORTION])).to_pylist()
        tokens = tokenizer(list(some), context_length=length + 1)
        num_cut += int((tokens[:, length] != padding).sum())
    share = len(long) / max(len(looked_at), 1)
    return Cut(round(num_cut * share), len(texts), len(looked_at) < len(long))
