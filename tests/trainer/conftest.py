"""Fixtures of the trainer's tests."""

import pytest
import torch

from tests.trainer.towers import add_tiny_models


@pytest.fixture(scope="session", autouse=True)
def _tiny_models(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Let open_clip know the tiny models, and keep torch to one thread."""
    torch.set_num_threads(1)
    add_tiny_models(tmp_path_factory.mktemp("models"))
