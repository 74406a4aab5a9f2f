"""Which picture an annotation means by a name, where it is not simply the path from a folder."""

import posixpath
import re
from collections.abc import Sequence

from pipeline.read.formats import is_image
from pipeline.read.location import Location
from pipeline.read.names import Names
from schemas.paths import as_path

_ABSOLUTE = re.compile(r"/|[A-Za-z]:[\\/]")


class Finder:
    """Finds the pictures that annotations name: by their path, else the one whose whole path ends so.

    An absolute name of another machine is the picture whose path below the folder it ends in.
    """

    def __init__(self, images: Location) -> None:
        self._images = images
        self._names = Names(images)
        self._folders: dict[str, str] = {}
        """What stood before the path of a picture in the absolute name that it was taken for."""
        self._by_name: dict[str, list[str]] = {}
        for file in images.files() if images.can_list else ():
            if is_image(file.uri):
                self._by_name.setdefault(posixpath.basename(file.uri), []).append(file.uri)

    def uri(self, files: Sequence[str]) -> tuple[str, str | None]:
        """Return the uri of the first of `files` that is there, else of the first; and why none can be told."""
        uris = [self._names.uri(file) for file in files]
        for file, uri in zip(files, uris, strict=True):
            alike = self._by_name.get(posixpath.basename(uri), ())
            found = [uri] if uri in alike else [other for other in alike if self._images.url(other).endswith(f"/{uri}")]
            if len(found) == 1:
                return found[0], None
            if found:
                named = f"{len(found)} pictures below {self._images.root} are called so, {found[0]} and {found[1]}"
                return uri, f"{uri}: {named}; name the folder of the right ones: ?images=DIR"
            path = as_path(file).replace("\\", "/")
            alike = self._by_name.get(posixpath.basename(path), ()) if _ABSOLUTE.match(path) else ()
            tails = [other for other in alike if path.endswith(f"/{other}")]
            if tails:
                return self._taken_for(max(tails, key=len), file, uri)
        return uris[0], None

    def _taken_for(self, found: str, file: str, uri: str) -> tuple[str, str | None]:
        """Return the picture that an absolute name of another machine ends in; one is not taken for two."""
        folder = file[: -len(found)]
        first = self._folders.setdefault(found, folder)
        if first == folder:
            return found, None
        return uri, f"{file}: not there, and {found} is taken for {first}{found} already"
