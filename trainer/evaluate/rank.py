"""Finding the texts of an image or region among all texts of the data, and the other way."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from trainer.evaluate.metrics import Ints, Metric, Scores, recalls


class Pairs(NamedTuple):
    """Which of N rows and T texts belong together: P pairs. A row may have several texts, and a text several rows."""

    row: Ints
    """`[P]`."""
    text: Ints
    """`[P]`."""


def pair_texts(rows: Ints, text_ids: Ints) -> tuple[Pairs, Ints]:
    """Return the pairs of P captions, whose `rows` and `text_ids` are `[P]`, and `[T]` where each text stands first.

    Captions of equal id are one text: finding it is right wherever it stands.
    """
    _, first, text = np.unique(text_ids, return_index=True, return_inverse=True)
    return Pairs(rows, text.astype(np.int64)), first.astype(np.int64)


def measure(features: Tensor, texts: Tensor, pairs: Pairs, images: Ints, what: str) -> Iterator[Metric]:
    """Yield recalls at 1, 5 and 10 both ways: `WHAT_to_text_recall@k` and `text_to_WHAT_recall@k`.

    `features` `[N, D]`, `texts` `[T, D]`, `images` `[N]`: the image that each row is of.
    """
    text_image = np.zeros(len(texts), dtype=np.int64)
    text_image[pairs.text[::-1]] = images[pairs.row[::-1]]  # where a text has several images, the first
    ways = (
        (f"{what}_to_text", features, texts, pairs, images),
        (f"text_to_{what}", texts, features, Pairs(pairs.text, pairs.row), text_image),
    )
    for name, queries, keys, matching, of in ways:
        for k, hits in recalls(queries, keys, _matches(matching, len(keys))).items():
            yield f"{name}_recall@{k}", Scores(hits=hits, images=of)
    yield f"num_{what}s", float(len(features))
    yield "num_texts", float(len(texts))


def _matches(pairs: Pairs, num_keys: int) -> Callable[[slice], Tensor]:
    """Return what says of a slice of rows `[n, M]` which keys match."""
    order = np.argsort(pairs.row, kind="stable")
    rows, keys = pairs.row[order], pairs.text[order]

    def of(queries: slice) -> Tensor:
        mine = slice(*np.searchsorted(rows, [queries.start, queries.stop]))
        matches = torch.zeros(queries.stop - queries.start, num_keys, dtype=torch.bool)
        matches[torch.from_numpy(rows[mine] - queries.start), torch.from_numpy(keys[mine])] = True
        return matches

    return of
