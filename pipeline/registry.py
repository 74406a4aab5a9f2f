"""Which proposers and captioners there are: ours, and those that other installed packages add by an entry point.

Listing them imports none, and using one imports that one alone. The package that one comes from decides the output as
our own code does, so the fingerprint and the provenance hold its name and version.
"""

import dataclasses
import functools
import importlib.metadata
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from typing import Any

from pipeline import DISTRIBUTION
from pipeline.backends import SettingError, load_backend

_DOCS = "docs/extending.md says what one has"
_HAS = ("name", "version", "config_class", "weights", "licenses", "provenance")


@dataclass(frozen=True, kw_only=True)
class Registry:
    """The backends of one kind."""

    kind: str
    """What they are called in errors: "proposer"."""
    own: Mapping[str, str]
    """Ours: where each one's class is, "module:Class", by name."""
    group: str
    """The group of entry points by which other packages add to them."""
    method: str
    """What one does, beside what all backends have."""
    taken: Callable[[], frozenset[str]] = frozenset
    """Returns the settings that are there for all, which the config of another package's must not have."""

    @property
    def names(self) -> list[str]:
        """The names of all, ours first."""
        return [*self.own, *sorted({point.name for point in self._points} - self.own.keys())]

    @property
    def listed(self) -> str:
        """All names for people, others' with their package."""
        others = sorted(f"{point.name} (of {_package(point)})" for point in self._points if point.name not in self.own)
        return ", ".join([*self.own, *others])

    def package(self, name: str) -> dict[str, str] | None:
        """Return name and version of the package that a backend comes from; None for ours, and for one unknown."""
        point = None if name in self.own else self._point(name)
        return None if point is None or point.dist is None else {"name": point.dist.name, "version": point.dist.version}

    def load(self, name: str) -> type[Any]:
        """Import and return the class called `name`: it is built as `cls(config, device=device)`.

        Raises ValueError, listing the known names, for any other name, SettingError for a name that two packages have
        and for another package's class that cannot be imported or is none, and ImportError where a package that ours
        needs is missing.
        """
        point = self._point(name)
        if point is None:
            return load_backend(self.own, self.kind, name, known=self.names)
        what = f"the {self.kind} {name!r} of the package {_package(point)}"
        try:
            backend = point.load()
        except Exception as error:  # it is anybody's code
            why = (str(error).strip() or "no message").splitlines()[0]
            raise SettingError(
                f"{what} cannot be imported ({type(error).__name__}: {why}); mend that package, or take it away"
            ) from error
        if wrong := self._wrong(backend, name):
            raise SettingError(f"{what} is no {self.kind}: {wrong}; {_DOCS}")
        return backend  # type: ignore[no-any-return]

    def _wrong(self, backend: Any, name: str) -> str | None:
        """Return what keeps a class from being a backend of this kind called `name`; None where nothing does."""
        if not isinstance(backend, type):
            return f"{backend!r} is no class"
        if lacking := [part for part in (*_HAS, self.method) if not hasattr(backend, part)]:
            return f"{backend.__name__} has no {', '.join(lacking)}"
        config: Any = backend.config_class  # type: ignore[attr-defined]
        if not dataclasses.is_dataclass(config) or not hasattr(config, "batch_size"):
            return f"{backend.__name__}.config_class is no dataclass with a default for batch_size"
        if both := {field.name for field in dataclasses.fields(config)} & self.taken():
            return f"its settings {', '.join(sorted(both))} are there for all {self.kind}s, under these names"
        called = backend.name  # type: ignore[attr-defined]
        return None if called == name else f"{backend.__name__}.name is {called!r}, not that of its entry point"

    def _point(self, name: str) -> EntryPoint | None:
        """Return the one entry point called `name`, or None. Raises SettingError where it is not the only one."""
        found = [point for point in self._points if point.name == name]
        owners = [*([f"{DISTRIBUTION} itself"] if name in self.own else []), *map(_package, found)]
        if found and len(owners) > 1:
            raise SettingError(
                f"{len(owners)} packages have a {self.kind} called {name!r}: {' and '.join(owners)}; "
                "take all but one away"
            )
        return found[0] if found else None

    @property
    def _points(self) -> tuple[EntryPoint, ...]:
        return _entry_points(self.group, tuple(sys.path))


@functools.lru_cache(maxsize=8)
def _entry_points(group: str, path: tuple[str, ...]) -> tuple[EntryPoint, ...]:
    """Return the entry points of a group that the packages on `path`, which is sys.path, have; imports nothing."""
    return tuple(importlib.metadata.entry_points(group=group))


def _package(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else "an unknown package"
