"""Keys of samples: names safe in a tar, on any file system and in a URL, made the same way every time.

A source's own name is kept when it is a key already; any other becomes a readable slug plus 8 hex digits of its hash,
so that names that read alike stay apart. Several inputs prefix their keys; a prefix holds no dash, so the first dash of
a prefixed key ends it and no two inputs can meet in one key.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Sequence

from pipeline.read.spec import split_options, split_prefix, tar_stem
from schemas.hashes import sha256
from schemas.names import KEY_PATTERN

_KEY = re.compile(KEY_PATTERN)
_NUMBERED = re.compile(r"(.+)-\d{5}-of-\d{5}\.")
"""How `datasets` and the Hub name the files of a split."""
_MAX_KEY = 80
_MAX_SLUG = 60
_MAX_PREFIX = 24
_MAX_MEMBER_STEM = 95
"""A tar's header holds names of 100 bytes; `.json` and `.webp` follow the key."""


def as_key(original: str) -> str:
    """Return `original` if it is a key of at most 80 characters, else its slug, a dash and 8 hex digits of its sha256.

    A name without a single ASCII letter or digit has no slug; 8 more digits of the hash stand in its place, because
    whole data sets are named in other scripts and 8 digits alone repeat within 100,000 names.
    """
    if len(original) <= _MAX_KEY and _KEY.fullmatch(original):
        return original
    digest = sha256(original.encode("utf-8", "surrogatepass"))
    return f"{_slug(original, _MAX_SLUG) or digest[8:16]}-{digest[:8]}"


def key_in_split(key: str, uri: str) -> str:
    """Return a row's own key behind the names of its file's folders and split, as each split may count for itself.

    `en/train/data-00000-of-00002.arrow` and `data/train-00000-of-00002.parquet` are of splits; a folder `data` says
    nothing. Names that hold what they are joined by have a hash behind them, as others could join to the same.
    """
    folders, _, name = uri.rpartition("/")
    numbered = _NUMBERED.match(name)
    parts = [part for part in (*folders.split("/"), numbered[1] if numbered else "") if part not in ("", "data")]
    if not parts:
        return key
    joined = "_".join(parts)
    split = as_key(joined).replace("-", "_")
    is_alone = split == joined and not any("_" in part for part in parts)
    return with_prefix(key, split if is_alone else f"{split}_{sha256('/'.join(parts).encode())[:8]}")


def splits_told_apart_by_name(uris: Iterable[str]) -> tuple[str, ...]:
    """Return the files of one folder whose names seem to be splits, such as `train.parquet` and `validation.parquet`.

    `key_in_split` says nothing of them, as it does not of `part-0.parquet` and `part-1.parquet`.
    """
    folders: dict[str, dict[str, str]] = {}
    for uri in uris:
        folder, _, name = uri.rpartition("/")
        if not _NUMBERED.match(name):
            folders.setdefault(folder, {}).setdefault(re.sub(r"\d+", "", name), uri)
    return next((tuple(names.values()) for names in folders.values() if len(names) > 1), ())


def keys_of_files(uris: Sequence[str]) -> list[str]:
    """Return the key of each file: its path without the extension.

    Files that differ only in the extension or in capitals are named by the whole path, extension included.
    """
    names = [without_extension(uri) for uri in uris]
    uses = Counter(name.casefold() for name in names)
    return [as_key(name if uses[name.casefold()] == 1 else uri) for name, uri in zip(names, uris, strict=True)]


def without_extension(uri: str) -> str:
    """Return a file's path without what follows the last dot of its name."""
    folder, slash, name = uri.rpartition("/")
    return f"{folder}{slash}{name.rpartition('.')[0] or name}"


def in_one_form(path: str) -> str:
    """Return a path with accents in one of the two forms that systems write, where files of one name are looked for."""
    return unicodedata.normalize("NFC", path)


def with_prefix(key: str, prefix: str) -> str:
    """Return the key within a data set of several inputs; `prefix` is "" for a lone input.

    One that would be too long for the plain name of a tar's member keeps its beginning, and 8 hex digits of its hash.
    """
    if not prefix or len(prefix) + 1 + len(key) <= _MAX_MEMBER_STEM:
        return f"{prefix}-{key}" if prefix else key
    kept = key[: _MAX_MEMBER_STEM - len(prefix) - 10].rstrip("-_")
    return f"{prefix}-{kept}-{sha256(key.encode())[:8]}"


def unique_prefix(spec: str, taken: Collection[str]) -> str:
    """Return a prefix for the INPUT `spec`, from its last path component: letters, digits and `_`, not in `taken`."""
    path, _ = split_options(split_prefix(spec)[1])
    name = tar_stem(path.rstrip("/").rpartition("/")[2]).removesuffix(".parquet").removesuffix(".json")
    stem = _slug(name, _MAX_PREFIX).replace("-", "_") or "input"
    prefix, number = stem, 1
    while prefix in taken:
        number += 1
        prefix = f"{stem}_{number}"
    return prefix


def input_prefixes(specs: Sequence[str], taken: Collection[str] = (), *, extends: bool = False) -> list[str]:
    """Return the prefix of each INPUT's keys, none among `taken`; a lone input that `extends` no others needs none."""
    if len(specs) == 1 and not extends:
        return [""]
    prefixes: list[str] = []
    for spec in specs:
        prefixes.append(unique_prefix(spec, [*taken, *prefixes]))
    return prefixes


def _slug(text: str, limit: int) -> str:
    """Return the ASCII letters and digits of `text`, lower case, with single dashes between; may be empty."""
    folded = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    words = re.sub(r"[^a-z0-9_]+", "-", folded)
    return words.strip("-_")[:limit].rstrip("-_")
