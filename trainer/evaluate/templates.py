"""The sentences that class names are put into: the 63 of ViLD (`schemas.class_sentences`), four, or a file's."""

from collections.abc import Sequence
from pathlib import Path

from schemas.class_sentences import VILD
from trainer.errors import TrainingError

SHORT = ("a photo of a {}.", "a photo of the {}.", "there is a {} in the scene.", "a {} in the picture.")

NAMED = {"vild": VILD, "short": SHORT}


def read_templates(name: str) -> Sequence[str]:
    """Return the sentences that `vild`, `short` or a file's lines give. Raises TrainingError: a line without `{}`."""
    if name in NAMED:
        return NAMED[name]
    try:
        lines = [line.strip() for line in Path(name).read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise TrainingError(f"--templates {name}: {error}; give vild, short, or a file of sentences") from error
    if not lines or any("{}" not in line for line in lines):
        raise TrainingError(f"--templates {name}: every line needs {{}} where the class name goes")
    return lines
