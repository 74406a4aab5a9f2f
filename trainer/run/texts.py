"""What a batch's captions are: tokens or features, and which pairs of image (or region) and text are compared."""

import numpy as np
import torch
from torch import Tensor

from trainer.data.batch import LoadedBatch
from trainer.data.index import SampleIndex
from trainer.loss.objective import Objective, Pairs
from trainer.model.student import Features
from trainer.model.text import FrozenText, TrainedText


class BatchTexts:
    """The captions of batches drawn from an index, as far as an objective compares them."""

    def __init__(
        self, index: SampleIndex, source: FrozenText | TrainedText, objective: Objective, *, labels: Tensor | None
    ) -> None:
        """`labels` `[R]` int64 are the concepts of the index's regions, for RegionCLIP."""
        self._index, self._source, self._objective, self._labels = index, source, objective, labels

    def captioned(self, batch: LoadedBatch) -> Tensor:
        """Return `[c]` int64, on the host: which of the batch's images have a caption."""
        return (batch.caption_index >= 0).nonzero().squeeze(1)

    def tokens(self, batch: LoadedBatch) -> list[Tensor] | None:
        """Return tokens `[c, L]`, `[n, L]`, `[h, L]` of what is compared, on the host; None where features are known.

        They are of captions of images, captions of regions, and hard negatives.
        """
        return None if isinstance(self._source, FrozenText) else self._source.tokens(self._compared(batch))

    def pairs(self, batch: LoadedBatch, features: Features) -> Pairs:
        """Return a batch's features with those of its texts, and what says which are alike, beside the pixels."""
        device, index = batch.device, self._index
        image_text, region_text, negative_text = features.image_text, features.region_text, features.negative_text
        if isinstance(self._source, FrozenText):
            known = self._source.features(self._compared(batch))
            image_text, region_text, negative_text = (tensor.to(device) for tensor in known)
        captioned, regions = self.captioned(batch), batch.region_index
        image_ids = index.image_text_ids[batch.caption_index[captioned].numpy()]
        return Pairs(
            image=features.image[captioned.to(device)],
            image_text=image_text,
            image_text_ids=torch.from_numpy(image_ids).to(device),
            roi=features.roi,
            region_text=region_text,
            region_text_ids=torch.from_numpy(index.region_text_ids[regions.numpy()]).to(device),
            crop=features.crop,
            region_image_index=batch.region_image_index.to(device),
            labels=None if self._labels is None else self._labels[regions].to(device),
            negative_text=negative_text if self._objective.uses_negatives else None,
            negative_owner=self._negatives(batch)[1].to(device),
        )

    def _negatives(self, batch: LoadedBatch) -> tuple[Tensor, Tensor]:
        """Return `[h]` rows in the index of the hard negatives of a batch's regions, and whose of them each is."""
        start = self._index.negative_start
        if start is None or not self._objective.uses_negatives:
            return torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64)
        regions = batch.region_index
        first, counts = (torch.from_numpy(of)[regions] for of in (start[:-1], np.diff(start)))
        owner = torch.arange(len(regions)).repeat_interleave(counts)
        within = torch.arange(len(owner)) - (counts.cumsum(0) - counts)[owner]
        return first[owner] + within, owner

    def _compared(self, batch: LoadedBatch) -> list[Tensor]:
        """Return the rows in the index of the captions of images, those of regions, and hard negatives to compare."""
        captions, regions = batch.caption_index[self.captioned(batch)], batch.region_index
        compares_images, compares_regions = self._objective.compares_images, self._objective.compares_regions
        compared = [captions[: None if compares_images else 0], regions[: None if compares_regions else 0]]
        return [*compared, self._negatives(batch)[0]]
