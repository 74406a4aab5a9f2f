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


def require(module: str, *, what: str, install: str) -> None:
    """Raise ImportError, with the line that installs it, where `module` is missing; imports nothing itself."""
    if importlib.util.find_spec(module) is None:
        raise ImportError(f"{what} needs the package {module!r}; install it with: {install}")
