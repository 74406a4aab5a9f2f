"""Features of a batch that is larger than memory, embedded in pieces (GradCache, Gao et al. 2021).

    features = cache.embed()      each piece without gradient, its random state remembered; leaves of all pieces
    loss_of(features).backward()  the loss of the whole batch, and its gradient for every feature
    cache.backward()              each piece again from its random state, its features' gradient passed on

The result is that of the batch at once. A lone piece is embedded once, with its graph; `backward` then has nothing to
do. Processes synchronise once, in the last piece's backward pass.
"""

import contextlib
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from trainer.data.batch import LoadedBatch
from trainer.model.student import Features

Embed = Callable[[LoadedBatch], Features]


class GradCache:
    """The pieces of one step's batch."""

    def __init__(
        self, pieces: Sequence[LoadedBatch], embed: Embed, *, module: nn.Module, trained: tuple[bool, ...]
    ) -> None:
        """`embed` runs `module` on a piece; `trained` says which of `Features` have a gradient."""
        self._pieces, self._embed, self._module, self._trained = pieces, embed, module, trained
        self._device = pieces[0].device
        self._states: list[tuple[Tensor, Tensor | None]] = []
        self._cached: list[Features] = []

    def embed(self) -> Features:
        """Return the features of all pieces, in order."""
        if len(self._pieces) == 1:
            return self._embed(self._pieces[0])
        cuda = self._device.type == "cuda"
        for piece in self._pieces:
            self._states.append((torch.get_rng_state(), torch.cuda.get_rng_state(self._device) if cuda else None))
            with torch.no_grad():
                self._cached.append(self._embed(piece))
        kinds = zip(zip(*self._cached, strict=True), self._trained, strict=True)
        self._leaves = Features(
            *(None if of_kind[0] is None else torch.cat(of_kind).requires_grad_(trained) for of_kind, trained in kinds)  # type: ignore[arg-type]  # the image's features are never None
        )
        return self._leaves

    def backward(self) -> None:
        """Pass the gradient of the features on to the parameters."""
        for number, (state, piece) in enumerate(zip(self._states, self._pieces, strict=bool(self._states))):
            torch.set_rng_state(state[0])
            if state[1] is not None:
                torch.cuda.set_rng_state(state[1], self._device)
            is_last = number == len(self._pieces) - 1
            alone = isinstance(self._module, DistributedDataParallel) and not is_last
            with self._module.no_sync() if alone else contextlib.nullcontext():  # type: ignore[operator]
                products = []
                for kind, features in enumerate(self._embed(piece)):
                    leaf = self._leaves[kind]
                    if features is not None and leaf is not None and leaf.grad is not None:
                        lengths = [len(cached[kind]) for cached in self._cached]  # type: ignore[arg-type]
                        products.append((features * leaf.grad.split(lengths)[number]).sum())
                torch.stack(products).sum().backward()
