"""What proposers and captioners have in common, and how one is found by name.

A backend's module is imported only when its name is asked for: a job pays for the one backend it uses.
"""

import dataclasses
import importlib
import importlib.util
from collections.abc import Collection, Mapping
from importlib.metadata import version
from typing import Any, ClassVar, Protocol

from pipeline.models.licenses import Licensed
from pipeline.models.weights import ModelFiles


class Backend(Protocol):
    """The half of the protocols of proposers and captioners that is the same: built from a config, then called.

    Weights load in the constructor, `cls(config, device=device)`.
    """

    name: ClassVar[str]
    version: ClassVar[int]
    """Raised when the same input and settings would give another output: it is part of the fingerprint."""
    config_class: ClassVar[type[Any]]
    config: Any
    """Of `config_class`."""
    batch_size: int
    """Items a call, fixed for the life of the backend."""

    @staticmethod
    def weights(config: Any) -> dict[str, Any]:
        """Return the settings that name weights, as the fingerprint holds them: by hash or commit, not by path.

        None takes a setting out that decides no output. Raises, at start, ImportError where a package is missing and
        SettingError for what cannot be used.
        """

    @staticmethod
    def licenses(config: Any) -> tuple[Licensed, ...]:
        """Return the terms of the code and the weights that `config` runs; loads nothing."""

    def provenance(self) -> dict[str, Any]:
        """Return what determines the output: model, revision, sha256 of the weights, settings, library versions."""


class BackendBase:
    """What most backends do alike: they keep their config, and their provenance is made of the same parts."""

    name: ClassVar[str]
    version: ClassVar[int]
    files_setting: ClassVar[str] = "model"
    """The setting that names the weights; the provenance has it without the path."""
    not_output: ClassVar[tuple[str, ...]] = ()
    """Settings that decide no output: the provenance leaves their values out, and `weights` should."""
    gives_labels: ClassVar[bool] = True
    """Whether a proposer says what its regions are."""
    needs_labels: ClassVar[bool] = False
    """Whether a captioner has nothing to say of a region without a label."""
    needs_source: ClassVar[bool] = False
    """Whether a captioner says what the source says of its regions, and of no others."""

    def __init__(
        self, config: Any, *, files: ModelFiles | None = None, libraries: Mapping[str, str] | None = None
    ) -> None:
        """Keep what the provenance is made of: `files` are the weights', where there are any.

        `libraries` are the packages that have a part in the output, by the name that the provenance calls them, each
        with the distribution it comes in.
        """
        self.config = config
        self.batch_size: int = config.batch_size
        self._files = files
        self._libraries = libraries or {}

    @staticmethod
    def weights(config: Any) -> dict[str, Any]:
        """Return nothing: there are no weights."""
        return {}

    def provenance(self) -> dict[str, Any]:
        """Return name, version, weights, settings and the versions of libraries."""
        settings = dataclasses.asdict(self.config) | dict.fromkeys(self.not_output)
        if self._files is not None:
            settings[self.files_setting] = self._files.name
        libraries = {name: version(distribution) for name, distribution in self._libraries.items()}
        return {
            "name": self.name,
            "version": self.version,
            "weights": self._files and self._files.identity(),
            "settings": settings,
            **({"libraries": libraries} if libraries else {}),
        }


def load_backend(
    registry: Mapping[str, str], kind: str, name: str, *, known: Collection[str] | None = None
) -> type[Any]:
    """Return the class that `registry` lists under `name`; its values are written "module:Class".

    `kind` names the registry in the error ("proposer"). Raises ValueError, listing the `known` names (by default those
    of the registry), for any other name, and ImportError where the backend's own packages are missing.
    """
    if name not in registry:
        raise ValueError(f"unknown {kind} {name!r}; known: {', '.join(sorted(registry if known is None else known))}")
    module_name, class_name = registry[name].split(":")
    backend: type[Any] = getattr(importlib.import_module(module_name), class_name)
    return backend


class SettingError(ValueError):
    """What a backend's setting names cannot be used; the message names the flag. Commands exit 2 on it."""

    exit_code = 2


_AT_LEAST_ONE = {"batch_size": 1, "max_proposals": 1, "image_side": 1}
_SHARES = ("min_score", "max_iou", "min_stability", "min_confidence")


def check_ranges(
    settings: Any, *, flag: str, least: Mapping[str, float] = _AT_LEAST_ONE, shares: Collection[str] = _SHARES
) -> None:
    """Raise ValueError, naming the flag, where one of the `settings` is out of its range.

    `flag` is what their flags begin with ("--propose"), `least` the smallest value that one may have, by name, and
    `shares` are 0 to 1; those that several backends have are the default. A setting that is not there is none.
    """
    for name, limit in least.items():
        if not getattr(settings, name, limit) >= limit:
            raise ValueError(
                f"{flag}.{name.replace('_', '-')} is {getattr(settings, name)}, but must be at least {limit}"
            )
    for name in shares:
        if not 0 <= getattr(settings, name, 0) <= 1:
            raise ValueError(
                f"{flag}.{name.replace('_', '-')} is {getattr(settings, name)}, but must be between 0 and 1"
            )


def require(module: str, *, what: str, install: str) -> None:
    """Raise ImportError, with the line that installs it, where `module` is missing; imports nothing itself."""
    if importlib.util.find_spec(module) is None:
        raise ImportError(f"{what} needs the package {module!r}; install it with: {install}")
