"""CAT-Seg: the cost volume of a CLIP, aggregated and decoded to a mask a name.

logits = segmenter(images, texts)
probabilities = segmenter.probabilities(pixels, texts, views)
"""

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize
from torch.utils.checkpoint import checkpoint

from trainer.data.decode import Pixels
from trainer.errors import TrainingError
from trainer.hyperparameters import Precision
from trainer.model.backbone import check_size
from trainer.model.open import LoadedModel
from trainer.model.student import encode_text
from trainer.model.taps import depth_of, tapped
from trainer.model.towers import UnsupportedTowerError, tower_of
from trainer.segmentation.aggregate import AggregateLayer
from trainer.segmentation.cost import cost_volume, likeliest
from trainer.segmentation.decoder import Decoder, Guides
from trainer.segmentation.settings import GUIDES_OF_DEPTH, HeadSettings, SegmentInputs, ViewSettings
from trainer.segmentation.tuning import Tuned, tuned_weights
from trainer.segmentation.views import cut, merge, resized

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_TEXTS = 32
"""Names embedded at a time where activations are computed twice."""
_NEVER = -100.0
"""Logit of classes that a view has no room for."""


class Segmenter(nn.Module):
    """The segmenter's own weights; the CLIP is used, in eval mode, and of it `tuned` is trained."""

    _mean: Tensor
    _std: Tensor

    def __init__(
        self,
        clip: LoadedModel,
        *,
        settings: HeadSettings,
        inputs: SegmentInputs,
        precision: Precision = "fp32",
        tune: bool = True,
        gradient_checkpointing: bool = False,
    ) -> None:
        """Build on a CLIP, of whose weights none are trained unless `tune`. Draws weights from torch's random numbers.

        `gradient_checkpointing` computes activations twice rather than keep them.

        Raises TrainingError where its blocks or sizes do not fit.
        """
        super().__init__()
        self._clip = (clip,)  # in a tuple, so that it is no part of this module
        clip.clip.eval().requires_grad_(False)
        visual = cast(nn.Module, clip.clip.visual)
        try:
            self._tower = tower_of(visual)
            check_size((inputs.image_size, inputs.image_size), self._tower.patch_size)
        except UnsupportedTowerError as error:
            raise TrainingError(f"{clip.name}: {error}") from error
        except ValueError as error:
            raise TrainingError(f"--image-size {inputs.image_size}: {error}") from error
        patches = inputs.image_size // self._tower.patch_size[0]
        if patches % settings.window or patches % settings.train_pool:
            raise TrainingError(
                f"--image-size {inputs.image_size} --window {settings.window} --train-pool {settings.train_pool}: "
                f"{patches} patches a side are not whole windows and pools; take "
                f"{2 * settings.window * self._tower.patch_size[0]}"
            )
        self._checkpointing = gradient_checkpointing
        self.settings, self.inputs, self.precision = settings, inputs, precision
        self._guides = guides_of(depth_of(self._tower), settings)
        width, dim = self._widths(visual)
        self.embed = nn.Conv2d(1, settings.dim, 7, padding=3)
        self.image_guide = nn.Sequential(nn.Conv2d(dim, settings.dim, 3, padding=1), nn.ReLU())
        self.text_guide = nn.Sequential(nn.Linear(dim, settings.dim), nn.ReLU())
        self.layers = nn.ModuleList(
            AggregateLayer(
                settings.dim,
                heads=settings.heads,
                window=settings.window,
                most=settings.most_classes,
                train_pool=settings.train_pool,
            )
            for _ in range(settings.layers)
        )
        self.guides = Guides(width, settings.guide_channels)
        self.decoder = Decoder(settings)
        for name, values in (("_mean", clip.mean), ("_std", clip.std)):
            self.register_buffer(name, torch.tensor(values).reshape(3, 1, 1) * 255, persistent=False)
        self.tuned: list[Tuned] = tuned_weights(clip.clip, text=inputs.text == "tuned") if tune else []

    @property
    def clip(self) -> LoadedModel:
        """The CLIP."""
        return self._clip[0]

    def sentences(self, names: Sequence[str]) -> Tensor:
        """Return tokens `[T, L]` of class names in their sentence; of names like "wall, brick wall" the first."""
        return self.clip.tokenize([sentence(self.inputs.template, name) for name in names])

    def texts(self, tokens: Tensor) -> Tensor:
        """Return features `[T, D]` of tokens, normalised; gradients flow where they are enabled."""
        tokens = tokens.to(self._mean.device)
        if not (self._checkpointing and torch.is_grad_enabled()):
            return encode_text(self.clip.clip, tokens)
        return torch.cat([self._run(encode_text, self.clip.clip, some) for some in tokens.split(_TEXTS)])

    def forward(self, images: Tensor, texts: Tensor) -> Tensor:
        """Return logits `[B, T, H, W]`, at the decoder's size.

        `images` `[B, 3, S, S]` are colours in 0..255, of the input's size or resized to it; `texts` is `[T, D]`.
        """
        with torch.autocast(images.device.type, _DTYPES[self.precision], enabled=self.precision != "fp32"):
            side = self.inputs.image_size
            seen_px = images if images.shape[2] == side else resized(images, (side, side))
            seen = tapped(
                self._tower, (seen_px - self._mean) / self._std, self._guides, residual=self.settings.residual
            )
            cost = cost_volume(seen.dense_features, texts)
            guides = self.guides(seen.maps[: len(self._guides)])
            image_guide = self.image_guide(seen.dense_features)
            if self.training or len(texts) <= self.settings.most_classes:
                return self._decode(cost, image_guide, texts.expand(len(images), -1, -1), guides)
            kept = likeliest(cost, self.settings.most_classes)
            some = cost.gather(1, kept[:, :, None, None].expand(-1, -1, *cost.shape[2:]))
            logits = self._decode(some, image_guide, texts[kept], guides)
            every = logits.new_full((len(images), len(texts), *logits.shape[2:]), _NEVER)
            return every.scatter(1, kept[:, :, None, None].expand_as(logits), logits)

    @torch.no_grad()
    def probabilities(self, pixels: Pixels, texts: Tensor, views: ViewSettings) -> Tensor:
        """Return `[T, h, w]` float32: of each name, how likely each pixel of an image `[h, w, 3]` is of it.

        The module must be in eval mode. Raises TrainingError where windows do not cover the image, or weights give no
        numbers.
        """
        image = torch.from_numpy(pixels.copy()).permute(2, 0, 1).float().to(self._mean.device)
        window = self.inputs.crop_px
        parts = [
            resized(self(some, texts).float(), (window, window)).sigmoid()
            for some in cut(image, views, window).split(views.views_at_once)
        ]
        merged = merge(torch.cat(parts), views)
        if not merged.isfinite().all():
            raise TrainingError(
                "the segmenter's probabilities are no numbers: its weights, or the CLIP's, are not finite"
            )
        return resized(merged[None], (image.shape[1], image.shape[2]))[0]

    def trained_state(self) -> dict[str, Tensor]:
        """Return all that is trained by name: the segmenter's, and the CLIP's under `clip.`."""
        return self.state_dict() | {f"clip.{one.name}": one.parameter.detach() for one in self.tuned}

    def load_trained(self, state: dict[str, Tensor]) -> None:
        """Take what `trained_state` gave; the CLIP's part goes into the CLIP."""
        own = {name: tensor for name, tensor in state.items() if not name.startswith("clip.")}
        self.load_state_dict(own)
        clips = {name.removeprefix("clip."): tensor for name, tensor in state.items() if name not in own}
        self.clip.clip.load_state_dict(clips, strict=False)

    def _decode(self, cost: Tensor, image_guide: Tensor, texts: Tensor, guides: list[Tensor]) -> Tensor:
        """Return logits of a cost volume `[B, T, h, w]` and texts `[B, T, D]`."""
        x = self.embed(cost.flatten(0, 1)[:, None]).unflatten(0, cost.shape[:2]).transpose(1, 2)
        text_guide = self.text_guide(normalize(texts, dim=2))
        for layer in self.layers:
            x = self._run(layer, x, image_guide, text_guide)
        return self._run(self.decoder, x, guides)

    def _run(self, part: Callable[..., Tensor], *given: Any) -> Tensor:
        """Call a part, its activations kept or computed again for the gradient."""
        if self._checkpointing and torch.is_grad_enabled():
            return checkpoint(part, *given, use_reentrant=False)
        return part(*given)

    @torch.no_grad()
    def _widths(self, visual: nn.Module) -> tuple[int, int]:
        """Return channels of tokens and of the dense map."""
        parameter = next(visual.parameters())
        small = torch.zeros(1, 3, *(2 * side for side in self._tower.patch_size), device=parameter.device)
        seen = tapped(self._tower, small, self._guides)
        return seen.maps[0].shape[1], seen.dense_features.shape[1]


def sentence(template: str, name: str) -> str:
    """Return the sentence for a class name, its bytes as they are; of several names the first."""
    first = name.split(", ")[0]
    article = "an" if first[:1].lower() in set("aeiou") else "a"
    return template.replace("{article}", article).replace("{}", first)


def guides_of(depth: int, settings: HeadSettings) -> tuple[int, ...]:
    """Return the blocks that guide the decoder: those given, or CAT-Seg's. Raises TrainingError where it has none."""
    guides = settings.guides or GUIDES_OF_DEPTH.get(depth)
    if guides is None or len(guides) != len(settings.guide_channels):
        raise TrainingError(
            f"--guides: CAT-Seg's are known for towers of 12 and 24 blocks, and this one has {depth}; name "
            f"{len(settings.guide_channels)} of them, from 0 to {depth - 2}"
        )
    if any(not 0 <= block < depth - 1 for block in guides):
        raise TrainingError(f"--guides {list(guides)}: name blocks from 0 to {depth - 2}: this tower has {depth}")
    return guides
