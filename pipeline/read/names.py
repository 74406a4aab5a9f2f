"""What a data file calls a picture, and which file that is: one place for COCO, tables of captions and Parquet.

    as written, with / for \\, %20 decoded, in the other Unicode form     the first of these that is there
    absolute, or with ..                                                  where it leads, if that may be read

Nobody vouches for names in a file that was downloaded: what leads out of INPUT's folder is read only from folders that
`--read.allow` names (`Location.allows`), and addresses are never fetched. Links are followed wherever they lead: a file
cannot make them, and the pictures of caches and snapshots are links.
"""

import os
import posixpath
import unicodedata
from collections.abc import Callable, Collection
from urllib.parse import quote, unquote

from pipeline.errors import SourceError
from pipeline.read.location import Location
from schemas.paths import as_path, is_url

_INLINE = "data:"
HOLDS_ITS_PICTURE = "holds its picture as base64, which is not read here: write it to a file, and name that"


def is_picture_itself(name: str) -> bool:
    """Return whether a name is none but a picture, written as a `data:` URL, which may have megabytes."""
    return name[: len(_INLINE)].lower() == _INLINE


class Names:
    """Turns names into uris relative to `location`; a store that lists files is listed once, where names are odd."""

    def __init__(self, location: Location) -> None:
        self._location = location
        self._listed: frozenset[str] | None = None

    def uri(self, name: str, folder: str = "") -> str:
        """Return the uri of the file called `name`, relative to the uri `folder` where it is relative.

        An address stays one. Of a file that is not there, or may not be read, it is the uri to be missed.
        """
        path = as_path(name) if is_url(name) else name
        if is_url(path):
            return path.removeprefix(f"{self._location.root}/")
        uris = [self._uri(spelling, folder) for spelling in spellings(path)]
        if not self._location.can_list:
            plain = uris[0].replace("\\", "/")
            return plain if "%" in plain else quote(plain)
        if len(uris) == 1:
            return uris[0]
        refused = next((uri for uri in uris if not self._location.allows(uri)), None)
        found = (uri for uri in uris if self._location.allows(uri) and self._is_there(uri))
        return next(found, refused or uris[0])

    def _uri(self, path: str, folder: str) -> str:
        root = self._location.root
        if path.startswith("/") and self._location.is_local:
            path = posixpath.normpath(path).replace("//", "/")
            inside = next((top for top in (root, os.path.realpath(root)) if path.startswith(f"{top}/")), None)
            return path[len(inside) + 1 :] if inside is not None else os.path.relpath(path, root)
        return posixpath.normpath(posixpath.join(folder, path.lstrip("/")))

    def _is_there(self, uri: str) -> bool:
        if self._location.is_local:
            return any(file.etag for file in self._location.lookup([uri]))
        if self._listed is None:
            self._listed = frozenset(file.uri for file in self._location.files())
        return uri in self._listed


def spellings(name: str) -> list[str]:
    """Return what a name may mean, as written first: tools of other systems write `\\` and `%20`, and other accents."""
    forms: list[Callable[[str], str]] = [
        lambda text: text.replace("\\", "/"),
        unquote,
        lambda text: unicodedata.normalize("NFC", text),
        lambda text: unicodedata.normalize("NFD", text),
    ]
    names = [name]
    for form in forms:
        names += [changed for changed in map(form, tuple(names)) if changed not in names]
    return names


def check_allowed(uris: Collection[str], location: Location, where: str) -> None:
    """Raise SourceError, with the flag and the count, where none of the `uris` that a file names may be read."""
    refused = [uri for uri in uris if not location.allows(uri)]
    if refused and len(refused) == len(uris):
        raise SourceError(refusal(refused, len(uris), location, where))


def refusal(refused: Collection[str], total: int, location: Location, where: str) -> str:
    """Say how many of the files that `where` names are not read, and what to do about it."""
    first = min(refused)
    counted = f"{where}: {len(refused):,} of the {total:,} files it names"
    if is_url(first):
        return (
            f"{counted} are addresses, such as {first}, and nothing is fetched: download them "
            "first, with img2dataset for instance"
        )
    path = location.url(first)
    return (
        f"{counted} lie outside of {location.root}, such as {path}; files that a table names are read from elsewhere "
        f"only with --read.allow DIR, here --read.allow {posixpath.dirname(path)}"
    )
