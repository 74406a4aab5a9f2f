"""A text file with a word, or some, on each line: phrases, concepts, nouns. A line that begins with # is a comment."""

from pathlib import Path

from pipeline.backends import SettingError


def read_word_list(path: str | Path, flag: str, what: str) -> tuple[str, ...]:
    """Return the lines of a file, each once, with single spaces; `flag` named it, `what` is one of them.

    Raises SettingError for a file that cannot be read or holds none.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        said = getattr(error, "strerror", None) or error
        raise SettingError(f"{flag} {path}: {said}; give a text file in UTF-8 with a {what} on each line") from error
    tidied = (" ".join(line.split()) for line in lines)
    found = tuple(dict.fromkeys(line for line in tidied if line and not line.startswith("#")))
    if not found:
        raise SettingError(f"{flag} {path}: holds no {what}; write one a line")
    return found
