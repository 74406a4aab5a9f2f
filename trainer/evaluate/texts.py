"""Texts as features: captions as they are, class names put into sentences whose features are averaged."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from trainer.errors import TrainingError
from trainer.model.open import LoadedModel
from trainer.model.text import embed_texts

DEFAULT_TEMPLATES = ("a photo of a {}.", "a photo of the {}.", "there is a {} in the scene.", "a {} in the picture.")


def read_templates(path: str) -> Sequence[str]:
    """Return the sentences of a file, one a line. Raises TrainingError where a line has no place for a class name."""
    try:
        lines = [line.strip() for line in Path(path).read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise TrainingError(f"--templates {path}: {error}") from error
    if not lines or any("{}" not in line for line in lines):
        raise TrainingError(f"--templates {path}: every line needs {{}} where the class name goes")
    return lines


@dataclass(frozen=True, kw_only=True)
class TextEncoder:
    """A model's text tower. Features are `[T, D]` float32, normalised, on the CPU."""

    model: LoadedModel
    device: torch.device
    templates: Sequence[str] = DEFAULT_TEMPLATES
    """Sentences with `{}` where a class name goes."""

    def captions(self, texts: Sequence[str]) -> Tensor:
        """Return the features of texts."""
        return embed_texts(self.model, texts, self.device)

    def class_names(self, names: Sequence[str]) -> Tensor:
        """Return the features of class names: each the mean over the templates."""
        rows = []
        for name in names:
            sentences = [template.replace("{}", name) for template in self.templates]
            mean = embed_texts(self.model, sentences, self.device).mean(dim=0, keepdim=True)
            rows.append(torch.nn.functional.normalize(mean))
        return torch.cat(rows)
