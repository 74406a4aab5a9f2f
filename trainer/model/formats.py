"""The forms that a trained model is written in. Nothing here imports torch."""

from typing import Literal

ExportFormat = Literal["open_clip", "official", "local-dir"]
"""Weights under open_clip's names or the original EVA-CLIP's, or a `local-dir:` folder."""
