"""Finds a proposer or captioner by name, importing its module only then: a job pays for the one backend it uses."""

import importlib
import importlib.util
from collections.abc import Mapping
from typing import Any


def load_backend(registry: Mapping[str, str], kind: str, name: str) -> type[Any]:
    """Return the class that `registry` lists under `name`; its values are written "module:Class".

    `kind` names the registry in the error ("proposer"). Raises ValueError, listing the known names, for any other
    name, and ImportError where the backend's own packages are missing.
    """
    if name not in registry:
        raise ValueError(f"unknown {kind} {name!r}; known: {', '.join(sorted(registry))}")
    module_name, class_name = registry[name].split(":")
    backend: type[Any] = getattr(importlib.import_module(module_name), class_name)
    return backend


class SettingError(ValueError):
    """What a backend's setting names cannot be used; the message names the flag. Commands exit 2 on it."""

    exit_code = 2


_AT_LEAST_ONE = ("batch_size", "max_proposals", "image_side")
_SHARES = ("min_score", "max_iou", "min_stability")


def check_ranges(config: Any, *, flag: str) -> None:
    """Raise ValueError, naming the flag, where a setting that several backends have is out of its range.

    `flag` is what the backend's flags begin with ("--propose").
    """
    for name in _AT_LEAST_ONE:
        if not getattr(config, name, 1) >= 1:
            raise ValueError(f"{flag}.{name} is {getattr(config, name)}, but must be at least 1")
    for name in _SHARES:
        if not 0 <= getattr(config, name, 0) <= 1:
            raise ValueError(f"{flag}.{name} is {getattr(config, name)}, but must be between 0 and 1")


def require(module: str, *, what: str, install: str) -> None:
    """Raise ImportError, with the line that installs it, where `module` is missing; imports nothing itself."""
    if importlib.util.find_spec(module) is None:
        raise ImportError(f"{what} needs the package {module!r}; install it with: {install}")
