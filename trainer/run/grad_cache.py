"""Features of a batch that is larger than memory, embedded in pieces (GradCache, Gao et al. 2021).

    features = cache.embed()      each piece without gradient, its random state remembered; leaves of all pieces
    loss_of(features).backward()  the loss of the whole batch, and its gradient for every feature
    cache.backward()              each piece again from its random state, its features' gradient passed on

The result is that of the batch at once. Without pieces it is embedded once, with its graph; `backward` then has nothing
to do. Processes synchronise once, in the last piece's backward pass.
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
    """One step's batch, and its pieces; None for a batch that is embedded at once.

    All processes have pieces or none has: DDP meets the others in a forward pass too, once, after the first step.
    """

    def __init__(
        self,
        batch: LoadedBatch,
        pieces: Sequence[LoadedBatch] | None,
        embed: Embed,
        *,
        module: nn.Module,
        trained: tuple[bool, ...],
    ) -> None:
        """`embed` runs `module` on a piece; `trained` says which of `Features` have a gradient."""
        self._batch, self._pieces, self._embed, self._module, self._trained = batch, pieces, embed, module, trained
        self._states: list[tuple[Tensor, Tensor | None]] = []
        self._cached: list[Features] = []

    def embed(self) -> Features:
        """Return the features of all pieces, in order."""
        if self._pieces is None:
            return self._embed(self._batch)
        device = self._batch.device
        for piece in self._pieces:
            self._states.append(
                (torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None)
            )
            with torch.no_grad():
                self._cached.append(self._embed(piece))
        kinds = zip(zip(*self._cached, strict=True), self._trained, strict=True)
        self._leaves = Features(
            *(None if of_kind[0] is None else torch.cat(of_kind).requires_grad_(trained) for of_kind, trained in kinds)  # type: ignore[arg-type]  # the image's features are never None
        )
        return self._leaves

    def backward(self) -> None:
        """Pass the gradient of the features on to the parameters."""
        pieces = self._pieces or ()
        for number, (state, piece) in enumerate(zip(self._states, pieces, strict=True)):
            torch.set_rng_state(state[0])
            if state[1] is not None:
                torch.cuda.set_rng_state(state[1], self._batch.device)
            is_last = number == len(pieces) - 1
            alone = isinstance(self._module, DistributedDataParallel) and not is_last
            with self._module.no_sync() if alone else contextlib.nullcontext():  # type: ignore[operator]
                products = []
                for kind, features in enumerate(self._embed(piece)):
                    leaf = self._leaves[kind]
                    if features is not None and leaf is not None and leaf.grad is not None:
                        lengths = [len(cached[kind]) for cached in self._cached]  # type: ignore[arg-type]
                        products.append((features * leaf.grad.split(lengths)[number]).sum())
                torch.stack(products).sum().backward()
