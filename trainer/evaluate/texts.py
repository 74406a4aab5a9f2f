"""Texts as features: captions as they are, class names put into sentences whose features are averaged."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import torch
from torch import Tensor
from torch.nn.functional import normalize

from schemas.class_sentences import sentences
from trainer.evaluate.metrics import finite
from trainer.evaluate.templates import SHORT
from trainer.evaluate.vocabulary import Vocabulary
from trainer.model.context import Cut, count_cut
from trainer.model.open import LoadedModel
from trainer.model.text import embed_texts

_PORTION = 2048
"""Texts between two looks at how far it is."""
_NAMES = 32
"""Class names whose sentences are embedded at a time."""


@dataclass(frozen=True, kw_only=True)
class TextEncoder:
    """A model's text tower. Features are `[T, D]` float32, normalised, on the CPU."""

    model: LoadedModel
    device: torch.device
    templates: Sequence[str] = SHORT
    """Sentences with `{}` where a class name goes."""
    spoken: Mapping[str, str] = field(default_factory=dict)
    """What sentences say for a class name, where it is not the name."""
    fixed: Mapping[str, Tensor] = field(default_factory=dict)
    """Features `[D]` of class names that are given, not computed."""
    vocabulary: Vocabulary | None = None
    """The words that `--task words` asks about."""
    watch: Callable[[int, int], None] = lambda done, total: None
    note_cut: Callable[[Cut], None] = lambda cut: None
    """Told how many captions are longer than the tower takes, and so are cut."""

    def captions(self, texts: Sequence[str]) -> Tensor:
        """Return the features of texts; those with more tokens than the tower takes are cut, and counted."""
        length = self.model.tokenize([""]).shape[1]
        self.note_cut(count_cut(pa.chunked_array([list(texts)], pa.string()), self.model.tokenize, length))
        parts = []
        for first in range(0, max(len(texts), 1), _PORTION):
            parts.append(embed_texts(self.model, texts[first : first + _PORTION], self.device))
            self.watch(min(first + _PORTION, len(texts)), len(texts))
        return finite(torch.cat(parts), "captions")

    def class_names(self, names: Sequence[str]) -> Tensor:
        """Return the features of class names: each the normalised mean over the templates."""
        if self.fixed:
            return torch.stack([self.fixed[name] for name in names])
        rows = []
        for first in range(0, len(names), _NAMES):
            some = names[first : first + _NAMES]
            spoken = [sentence for name in some for sentence in sentences(self.templates, self.spoken.get(name, name))]
            features = embed_texts(self.model, spoken, self.device)
            rows.append(normalize(features.unflatten(0, (len(some), -1)).mean(dim=1)))
            self.watch(min(first + _NAMES, len(names)), len(names))
        return finite(torch.cat(rows), "class names")
