"""A small BLIP-2: `Blip2ForConditionalGeneration` with an OPT head, trained on crops of scenes and their captions.

The checkpoint has the layout of the hub's models, so that the same code loads it. Crops go onto a canvas at their own
scale (centred, black around) and are never resized: otherwise a crop could not tell how large its object is.

While training, `heads` on the vision tower teach it shapes; they are dropped at the end.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import (
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2Processor,
    CLIPImageProcessor,
    PreTrainedTokenizerFast,
)

from pipeline.minis.batches import Example, crops_of_step
from pipeline.minis.heads import TeachingHeads, position_waves
from pipeline.minis.loop import Losses, MiniRecipe, Run, start
from pipeline.minis.tokens import BOUND, BOUND_ID, PAD_ID, train_tokenizer
from pipeline.sample import Pixels
from pipeline.scenes.words import every_region_caption

CANVAS_PX = 80
_PATCH_PX = 8
_NUM_QUERY_TOKENS = 8
_MAX_NEW_TOKENS = 12
_IMAGE = "<image>"


@dataclass(frozen=True, kw_only=True)
class CaptionerRecipe(MiniRecipe):
    """How the shipped captioner was trained."""

    steps: int = 8000
    batch_size: int = 48
    lr: float = 1e-3
    warmup_steps: int = 300
    weight_decay: float = 0.05
    heads_weight: float = 1.0
    """Of the attribute heads' loss beside the captions'."""
    mask_weight: float = 2.0
    """Of the mask head's loss beside the captions'."""


SHIPPED = CaptionerRecipe()


def train(recipe: CaptionerRecipe, folder: Path) -> None:
    """Train a captioner in `folder` (continuing a stopped run there) and save it to `folder/checkpoint`."""
    start(recipe)
    processor = build_processor()
    trainee = _Trainee(build_model(processor.tokenizer), processor, recipe)
    Run(trainee.module, recipe, folder).train(trainee.losses_at)
    save(trainee.model, processor, folder / "checkpoint")


def build_processor() -> Blip2Processor:
    """Return the processor: crops to `[B, 3, 80, 80]` without resizing, captions to tokens of an own small BPE."""
    images = CLIPImageProcessor(
        do_resize=False,
        do_center_crop=True,
        crop_size={"height": CANVAS_PX, "width": CANVAS_PX},
        image_mean=[0.5] * 3,
        image_std=[0.25] * 3,
    )
    # As with OPT's own tokenizer, a text starts with the boundary token.
    tokenizer = train_tokenizer(every_region_caption(), template=f"{BOUND} $A", max_length=64, extra=[_IMAGE])
    return Blip2Processor(images, tokenizer, num_query_tokens=_NUM_QUERY_TOKENS)


def build_model(tokenizer: PreTrainedTokenizerFast) -> Blip2ForConditionalGeneration:
    """Return a model with random weights: 4 vision layers, 2 Q-Former layers and 2 OPT layers, all 128 wide."""
    ids = {"pad_token_id": PAD_ID, "bos_token_id": BOUND_ID, "eos_token_id": BOUND_ID}
    config = Blip2Config(
        vision_config={
            "hidden_size": 128,
            "intermediate_size": 512,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "image_size": CANVAS_PX,
            "patch_size": _PATCH_PX,
        },
        qformer_config={
            "hidden_size": 128,
            "intermediate_size": 256,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "encoder_hidden_size": 128,
            "cross_attention_frequency": 1,
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
            "vocab_size": len(tokenizer),
        },
        text_config={
            "model_type": "opt",
            "hidden_size": 128,
            "word_embed_proj_dim": 128,
            "ffn_dim": 512,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "max_position_embeddings": 64,
            "vocab_size": len(tokenizer),
            "dropout": 0.0,
            "layerdrop": 0.0,
            **ids,
        },
        num_query_tokens=_NUM_QUERY_TOKENS,
        image_token_index=tokenizer.get_vocab()[_IMAGE],
    )
    model = Blip2ForConditionalGeneration(config)
    # On CPUs the backward pass of torch's fused attention takes half of a step; plain attention a tenth.
    model.set_attn_implementation("eager")
    positions = model.vision_model.embeddings.position_embedding
    positions.data[0, 1:] = position_waves(CANVAS_PX // _PATCH_PX, positions.shape[-1])
    return model


class _Trainee:
    """The model with its training heads."""

    def __init__(
        self, model: Blip2ForConditionalGeneration, processor: Blip2Processor, recipe: CaptionerRecipe
    ) -> None:
        self.model, self._processor, self._recipe = model, processor, recipe
        vision: Any = model.config.vision_config
        width = vision.hidden_size
        self._heads = TeachingHeads(width, _PATCH_PX)
        self.module = nn.ModuleDict({"model": model, "heads": self._heads.module})

    def losses_at(self, step: int) -> Losses:
        examples = crops_of_step(self._recipe.seed, step, self._recipe.batch_size)
        pixel_values = pixels_to_input(self._processor, [example.pixels for example in examples])
        tokens = self._tokens([example.caption for example in examples])
        output = self.model(pixel_values=pixel_values, return_dict=True, **tokens)
        patches = output.vision_outputs.last_hidden_state[:, 1:]
        heads, right = self._heads.attributes_loss(patches, [example.attributes for example in examples])
        mask = self._heads.mask_loss(patches, self._masks(examples))
        parts = {"caption_loss": output.loss.detach(), "heads_loss": heads.detach(), "mask_loss": mask.detach()}
        loss = output.loss + self._recipe.heads_weight * heads + self._recipe.mask_weight * mask
        return {"loss": loss} | parts | right

    def _tokens(self, captions: Sequence[str]) -> dict[str, Tensor]:
        """Return `input_ids`, `attention_mask` and `labels`, `[B, L]` int64: image tokens, then the caption."""
        prefix = _IMAGE * _NUM_QUERY_TOKENS + BOUND
        tokens = self._processor.tokenizer(
            [prefix + caption + BOUND for caption in captions],
            add_special_tokens=False,
            padding=True,
            return_tensors="pt",
        )
        labels = tokens["input_ids"].masked_fill(tokens["attention_mask"] == 0, -100)
        labels[:, : _NUM_QUERY_TOKENS + 1] = -100
        return {"input_ids": tokens["input_ids"], "attention_mask": tokens["attention_mask"], "labels": labels}

    def _masks(self, examples: Sequence[Example]) -> Tensor:
        """Return `[B, 1, 80, 80]` of 0 and 1: the objects' masks, put onto the canvas just as the pixels are."""
        masks = [np.repeat(example.mask[None], 3, axis=0).astype(np.uint8) for example in examples]
        on_canvas = self._processor.image_processor(
            masks, do_rescale=False, do_normalize=False, input_data_format="channels_first", return_tensors="pt"
        )
        return torch.as_tensor(on_canvas["pixel_values"])[:, :1]


def pixels_to_input(processor: Blip2Processor, crops: Sequence[Pixels]) -> Tensor:
    """Return crops (`[h, w, 3]` uint8 RGB each) as `[B, 3, 80, 80]` float32, by the processor's own rules."""
    channels_first = [np.ascontiguousarray(crop.transpose(2, 0, 1)) for crop in crops]
    images = processor.image_processor(channels_first, input_data_format="channels_first", return_tensors="pt")
    return torch.as_tensor(images["pixel_values"])


def save(model: Blip2ForConditionalGeneration, processor: Blip2Processor, folder: Path) -> None:
    """Write model (fp16 safetensors), tokenizer and processor in the hub's layout."""
    model.half().save_pretrained(folder)
    model.float()
    processor.save_pretrained(folder)


def load(folder: Path) -> tuple[Blip2ForConditionalGeneration, Blip2Processor]:
    """Return the model in float32, in eval mode, and its processor, from a local folder in the hub's layout."""
    model = Blip2ForConditionalGeneration.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    return model.eval(), Blip2Processor.from_pretrained(folder, local_files_only=True)


def caption(
    model: Blip2ForConditionalGeneration, processor: Blip2Processor, crops: Sequence[Pixels], *, batch_size: int = 64
) -> list[str]:
    """Return the model's caption of each crop (`[h, w, 3]` uint8 RGB), greedily decoded."""
    texts: list[str] = []
    for first in range(0, len(crops), batch_size):
        pixel_values = pixels_to_input(processor, crops[first : first + batch_size])
        with torch.inference_mode():
            tokens = model.generate(pixel_values=pixel_values, max_new_tokens=_MAX_NEW_TOKENS, do_sample=False)
        texts.extend(processor.batch_decode(tokens, skip_special_tokens=True))
    return [text.strip() for text in texts]
