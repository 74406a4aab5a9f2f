"""k-means of patches, the same in every run: nothing is drawn at random."""

import torch
from torch import Tensor

_ROUNDS = 100


def cluster(features: Tensor, num_clusters: int) -> Tensor:
    """Return `[N]` int64: the cluster of each row of `[N, D]` normalised features, fewer than asked where rows repeat.

    It starts from the row farthest from the mean, then each time from the row farthest from all before, and moves the
    centres until no row changes its own.
    """
    features = features.double()
    distances = (features - features.mean(dim=0)).square().sum(dim=1)
    centres: list[Tensor] = []
    for _ in range(min(num_clusters, len(features))):
        centres.append(features[int(distances.argmax())])
        new = (features - centres[-1]).square().sum(dim=1)
        distances = new if len(centres) == 1 else torch.minimum(distances, new)
        if not float(distances.max()) > 0:
            break
    means = torch.stack(centres)
    owner = torch.full((len(features),), -1)
    for _ in range(_ROUNDS):
        nearest = torch.cdist(features, means).argmin(dim=1)
        if torch.equal(nearest, owner):
            break
        owner = nearest
        for number in owner.unique().tolist():
            means[number] = features[owner == number].mean(dim=0)
    return owner


def like_first(owner: Tensor, first: Tensor) -> Tensor:
    """Return clusters `[N]` renumbered so that each has the number of that of `first` `[N]` that it overlaps most.

    The largest overlaps are served first; what is left over gets the numbers that are left over.
    """
    count = int(max(owner.max(), first.max())) + 1
    overlap = torch.zeros(count, count, dtype=torch.int64)
    overlap.index_put_((owner, first), torch.ones_like(owner), accumulate=True)
    numbers: dict[int, int] = {}
    for at in overlap.flatten().argsort(descending=True, stable=True).tolist():
        mine, theirs = divmod(at, count)
        if mine not in numbers and theirs not in numbers.values():
            numbers[mine] = theirs
    return torch.tensor([numbers[number] for number in owner.tolist()])
