"""Detectors that are asked by text, of the real architectures in transformers, small and with random weights."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import transformers

from tests.random_detectors import write_random

NUM_QUERIES = 20
_EDGES = {"shortest_edge": 96, "longest_edge": 160}
_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789-,'"
_SPECIAL_IDS = {"[PAD]": 0, "[UNK]": 100, "[CLS]": 101, "[SEP]": 102, "[MASK]": 103, ".": 1012, "?": 1029}
"""As in BERT's vocabulary: Grounding DINO knows these numbers."""
_SWIN: dict[str, Any] = {
    "image_size": 64,
    "embed_dim": 8,
    "depths": [1, 1, 1, 1],
    "num_heads": [1, 2, 2, 2],
    "window_size": 4,
    "out_features": ["stage2", "stage3", "stage4"],
}
_CLIP: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}

_Made = tuple[Any, Any]
"""A model and its processor."""


def bert_tokenizer() -> Any:
    """Return BERT's tokenizer with a vocabulary of letters; a word is as many tokens as it has letters."""
    pieces = [*_LETTERS, *(f"##{letter}" for letter in _LETTERS)]
    free = (number for number in range(1, 1100) if number not in _SPECIAL_IDS.values())
    vocabulary = _SPECIAL_IDS | {piece: next(free) for piece in pieces}
    vocabulary |= {f"[unused{number}]": number for number in free}
    return transformers.BertTokenizer(vocab=vocabulary, model_max_length=512)


def clip_tokenizer(length: int) -> Any:
    """Return CLIP's tokenizer with a vocabulary of letters, for texts of `length` tokens."""
    letters = ["!", *_LETTERS, ".", *(f"{letter}</w>" for letter in ("!", *_LETTERS, "."))]
    vocabulary = {piece: number for number, piece in enumerate([*letters, "<|startoftext|>", "<|endoftext|>"])}
    return transformers.CLIPTokenizer(vocab=vocabulary, merges=[], pad_token="!", model_max_length=length)


def _ids(tokenizer: Any) -> dict[str, int]:
    """Return what a text model must know of its tokenizer."""
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    return {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id, **ends}


def _grounding_dino(kind: str) -> _Made:
    tokenizer = bert_tokenizer()
    small = {"encoder_layers": 1, "decoder_layers": 2, "d_model": 32, "num_queries": NUM_QUERIES, "max_text_len": 48}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32}
    config = getattr(transformers, f"{kind}Config")(
        backbone_config=transformers.SwinConfig(**_SWIN),
        text_config=transformers.BertConfig(vocab_size=1100, **_CLIP),
        **small,
        **heads,
    )
    model = getattr(transformers, f"{kind}ForObjectDetection")(config)
    return model, transformers.GroundingDinoProcessor(transformers.GroundingDinoImageProcessor(size=_EDGES), tokenizer)


def _owlv2() -> _Made:
    tokenizer = clip_tokenizer(16)
    config = transformers.Owlv2Config(
        text_config={**_CLIP, **_ids(tokenizer), "max_position_embeddings": 16},
        vision_config={**_CLIP, "image_size": 64, "patch_size": 16},
        projection_dim=32,
    )
    processor = transformers.Owlv2ImageProcessor(size={"height": 64, "width": 64})
    return transformers.Owlv2ForObjectDetection(config), transformers.Owlv2Processor(processor, tokenizer)


def _omdet_turbo() -> _Made:
    tokenizer = clip_tokenizer(77)
    config = transformers.OmDetTurboConfig(
        text_config={"model_type": "clip_text_model", **_CLIP, **_ids(tokenizer), "hidden_size": 48},
        backbone_config=transformers.SwinConfig(**_SWIN),
        apply_layernorm_after_vision_backbone=False,
        image_size=128,
        num_queries=NUM_QUERIES,
        text_projection_in_dim=48,
        text_projection_out_dim=48,
        task_encoder_hidden_dim=32,
        class_embed_dim=48,
        encoder_hidden_dim=32,
        vision_features_channels=[32, 32, 32],
        encoder_in_channels=[16, 32, 64],
        encoder_attention_heads=2,
        encoder_dim_feedforward=32,
        decoder_hidden_dim=32,
        decoder_num_heads=2,
        decoder_num_layers=2,
        decoder_dim_feedforward=32,
    )
    processor = transformers.DetrImageProcessor(size={"height": 128, "width": 128})
    return transformers.OmDetTurboForObjectDetection(config), transformers.OmDetTurboProcessor(processor, tokenizer)


GROUNDERS: dict[str, Callable[[], _Made]] = {
    "grounding-dino": lambda: _grounding_dino("GroundingDino"),
    "mm-grounding-dino": lambda: _grounding_dino("MMGroundingDino"),
    "owlv2": _owlv2,
    "omdet-turbo": _omdet_turbo,
}
"""By transformers' name of the architecture."""


def random_grounder(folder: Path, architecture: str) -> None:
    """Write a detector that is asked by text, and its processor: boxes and scores differ by image and by text."""
    write_random(folder, GROUNDERS[architecture])


def random_sam3(folder: Path) -> None:
    """Write a Segment Anything 3 of 56 pixels, and its processor."""
    write_random(folder, _sam3)


def _sam3() -> _Made:
    tokenizer = clip_tokenizer(32)
    layers = {"hidden_size": 32, "intermediate_size": 32, "num_layers": 1, "num_attention_heads": 2}
    backbone = {
        "model_type": "sam3_vit_model",
        **_CLIP,
        "image_size": 56,
        "patch_size": 14,
        "pretrain_image_size": 28,
        "window_size": 2,
        "global_attn_indexes": [1],
    }
    config = transformers.Sam3Config(
        vision_config={
            "backbone_config": backbone,
            "fpn_hidden_size": 32,
            "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
        },
        text_config={**_CLIP, **_ids(tokenizer), "max_position_embeddings": 32, "projection_dim": 32},
        geometry_encoder_config=layers,
        detr_encoder_config=layers,
        detr_decoder_config={**layers, "num_queries": NUM_QUERIES},
        mask_decoder_config={"hidden_size": 32, "num_attention_heads": 2},
    )
    size = {"height": 56, "width": 56}
    image_processor = transformers.Sam3ImageProcessor(size=size, mask_size={"height": 16, "width": 16})
    return transformers.Sam3Model(config), transformers.Sam3Processor(image_processor, tokenizer)
