"""The forms that a trained model is written in, and what open_clip knows them by. Nothing here imports torch."""

from typing import Literal

ExportFormat = Literal["open_clip", "official", "local-dir"]
"""Weights under open_clip's names or the original EVA-CLIP's, or a `local-dir:` folder."""

LOCAL_DIR = "local-dir:"
"""What the name of a model begins with that is a folder."""
CONFIG = "open_clip_config.json"
"""The file of such a folder that says what the model is."""
