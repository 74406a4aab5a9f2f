"""Fixtures of the trainer's tests: open_clip learns the tiny models once."""

from tests.trainer.towers import _tiny_models  # noqa: F401  # a fixture
