"""Class names in sentences: the 63 of ViLD, four short ones, the plain name, or those of a file.

ViLD's are a list that the field shares (Gu et al., 2022, after CLIP's prompts): `{}` is the name, `{article}` its a or
an. A sentence that begins with an article is put after "This is".
"""

from collections.abc import Sequence
from pathlib import Path

from trainer.errors import TrainingError

SHORT = ("a photo of a {}.", "a photo of the {}.", "there is a {} in the scene.", "a {} in the picture.")

PLAIN = ("{article} {}",)

_QUALITIES = ("good", "bad", "bright", "dark", "low resolution", "cropped", "close-up", "jpeg corrupted", "blurry")
_KINDS = ("nice", "cool", "weird", "small", "large", "clean", "dirty", "hard to see")
_MADE_OF = ("plastic", "toy", "plushie", "cartoon")


def _vild() -> tuple[str, ...]:
    scene = [
        "There is {article} {} in the scene.",
        "There is the {} in the scene.",
        "a photo of {article} {} in the scene.",
        "a photo of the {} in the scene.",
        "a photo of one {} in the scene.",
    ]
    taken = [f"itap of {which} {{}}." for which in ("{article}", "my", "the")]
    taken += [f"a photo of {which} {{}}." for which in ("{article}", "my", "the", "one", "many")]
    adjectives = [f"a photo of {article} {kind} {{}}." for kind in _KINDS for article in ("a", "the")]
    photos = [
        f"a {quality} photo of {article} {{}}."
        for quality in (*_QUALITIES, "pixelated", "black and white")
        for article in ("{article}", "the")
    ]
    things = [f"{article} {made} {{}}." for made in _MADE_OF for article in ("a", "the")]
    drawn = ["an embroidered {}.", "the embroidered {}.", "a painting of the {}.", "a painting of a {}."]
    return (*scene, *taken, *adjectives, *photos, *things, *drawn)


VILD = _vild()
"""63 sentences."""

NAMED = {"vild": VILD, "short": SHORT, "plain": PLAIN}


def read_templates(name: str) -> Sequence[str]:
    """Return the sentences of `vild`, `short`, `plain`, or a file. Raises TrainingError: a line without `{}`."""
    if name in NAMED:
        return NAMED[name]
    try:
        lines = [line.strip() for line in Path(name).read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise TrainingError(f"--templates {name}: {error}; give vild, short, plain, or a file of sentences") from error
    if not lines or any("{}" not in line for line in lines):
        raise TrainingError(f"--templates {name}: every line needs {{}} where the class name goes")
    return lines


def fill(template: str, name: str) -> str:
    """Return the sentence for a class name; underscores are spaces and slashes or, as ViLD has it."""
    spoken = name.replace("_", " ").replace("/", " or ")
    article = "an" if spoken[:1].lower() in set("aeiou") else "a"
    return template.replace("{article}", article).replace("{}", spoken)


def sentences(templates: Sequence[str], name: str) -> list[str]:
    """Return all sentences for a class name."""
    filled = [fill(template, name) for template in templates]
    if tuple(templates) != VILD:
        return filled
    return [f"This is {text}" if text.startswith(("a ", "an ", "the ")) else text for text in filled]
