"""The sentences for class names: ViLD's 63 (`schemas.class_sentences`), four, the plain name, or those of a file."""

from collections.abc import Sequence
from pathlib import Path

from schemas.class_sentences import VILD
from trainer.errors import TrainingError

SHORT = ("a photo of a {}.", "a photo of the {}.", "there is a {} in the scene.", "a {} in the picture.")

PLAIN = ("{article} {}",)

NAMED = {"vild": VILD, "short": SHORT, "plain": PLAIN}


def read_templates(name: str) -> Sequence[str]:
    """Return the sentences of `vild`, `short`, `plain`, or a file. Raises TrainingError: a line without `{}`."""
    if name in NAMED:
        return NAMED[name]
    try:
        lines = [line.strip() for line in Path(name).read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise TrainingError(f"--templates {name}: {error}; give vild, short, plain, or a file of sentences") from error
    if not lines or any("{}" not in line for line in lines):
        raise TrainingError(f"--templates {name}: every line needs {{}} where the class name goes")
    odd = next((line for line in lines if set("{}") & set(line.replace("{}", "").replace("{article}", ""))), None)
    if odd is not None:
        raise TrainingError(f"--templates {name}: {odd!r}: only {{}} and {{article}} are filled in")
    return lines
