"""Ranges of settings: what a number must be at least, told of by its flag, before any work."""

from collections.abc import Sequence
from typing import Any


def check_at_least(settings: Any, least: float, names: Sequence[str]) -> None:
    """Raise ValueError, naming the flag, where one of the settings `names` is less than `least`; None is no number."""
    _check(settings, names, lambda value: value >= least, f"give {least} or more")


def check_above(settings: Any, least: float, names: Sequence[str]) -> None:
    """Raise ValueError, naming the flag, where one of the settings `names` is not more than `least`."""
    _check(settings, names, lambda value: value > least, f"give more than {least}")


def check_shares(settings: Any, names: Sequence[str]) -> None:
    """Raise ValueError, naming the flag, where one of the settings `names` is not from 0 to 1."""
    _check(settings, names, lambda value: 0 <= value <= 1, "a share from 0 to 1")


def _check(settings: Any, names: Sequence[str], holds: Any, wanted: str) -> None:
    for name in names:
        value = getattr(settings, name)
        numbers = value if isinstance(value, tuple) else (value,)
        if not all(number is None or holds(number) for number in numbers):
            shown = list(value) if isinstance(value, tuple) else value
            raise ValueError(f"--{name.replace('_', '-')} {shown}: {wanted}")
