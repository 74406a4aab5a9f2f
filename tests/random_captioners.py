"""Captioners of real architectures with small random weights: they prove plumbing, and their output means nothing."""

from pathlib import Path
from typing import Any

import torch

from pipeline.minis.tokens import BOUND, BOUND_ID, PAD, PAD_ID, train_tokenizer
from pipeline.scenes.words import every_region_caption

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message.role }}: "
    "{% for part in message.content %}"
    "{% if part.type == 'image' %}IMAGE{% else %}{{ part.text }}{% endif %}"
    "{% endfor %}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
_IMAGE = "<image>"
FLORENCE_PATTERN = r"([a-zA-Z0-9 ]+)<loc_(\d+)><loc_(\d+)><loc_(\d+)><loc_(\d+)>"
"""Of the released models."""
_QWEN_SPECIAL = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")


def random_blip2_t5(folder: Path) -> None:
    """Write a small BLIP-2 with a T5 head in the hub's layout."""
    from transformers import Blip2Config, Blip2ForConditionalGeneration, Blip2Processor, BlipImageProcessor

    processor = Blip2Processor(BlipImageProcessor(size={"height": 32, "width": 32}), _tokenizer(_IMAGE), 4)
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = Blip2Config(
        vision_config={**small, "image_size": 32, "patch_size": 8},
        qformer_config={
            **small,
            "encoder_hidden_size": 32,
            "cross_attention_frequency": 1,
            "vocab_size": len(processor.tokenizer),
        },
        text_config={
            "model_type": "t5",
            "d_model": 32,
            "d_ff": 64,
            "d_kv": 16,
            "num_layers": 2,
            "num_heads": 2,
            "vocab_size": len(processor.tokenizer),
            "pad_token_id": PAD_ID,
            "bos_token_id": BOUND_ID,
            "eos_token_id": BOUND_ID,
            "decoder_start_token_id": PAD_ID,
        },
        num_query_tokens=4,
        image_token_index=processor.tokenizer.convert_tokens_to_ids(_IMAGE),
    )
    _save(Blip2ForConditionalGeneration, config, processor, folder)


def random_qwen2_vl(folder: Path) -> None:
    """Write a small Qwen2-VL: an image takes as many tokens as it is large, so that batches need padding."""
    from transformers import (
        Qwen2VLConfig,
        Qwen2VLForConditionalGeneration,
        Qwen2VLImageProcessor,
        Qwen2VLProcessor,
        Qwen2VLVideoProcessor,
    )

    tokenizer = _tokenizer(*_QWEN_SPECIAL)
    start, end, image, video = (tokenizer.convert_tokens_to_ids(token) for token in _QWEN_SPECIAL)
    sizes = {"patch_size": 4, "merge_size": 2, "min_pixels": 8 * 8, "max_pixels": 64 * 64}
    processor = Qwen2VLProcessor(
        Qwen2VLImageProcessor(**sizes),
        tokenizer,
        Qwen2VLVideoProcessor(**sizes),
        chat_template=CHAT_TEMPLATE.replace("IMAGE", "<|vision_start|><|image_pad|><|vision_end|>"),
    )
    config = Qwen2VLConfig(
        text_config=_text_config(len(tokenizer))
        | {"rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10000.0}},
        vision_config={"depth": 2, "embed_dim": 32, "hidden_size": 32, "num_heads": 2, "mlp_ratio": 2, "patch_size": 4},
        image_token_id=image,
        video_token_id=video,
        vision_start_token_id=start,
        vision_end_token_id=end,
    )
    _save(Qwen2VLForConditionalGeneration, config, processor, folder)


def random_llava(folder: Path) -> None:
    """Write a small LLaVA: CLIP's tower and a Llama, in which every image takes as many tokens."""
    from transformers import CLIPImageProcessor, LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor

    tokenizer = _tokenizer(_IMAGE)
    processor = LlavaProcessor(
        CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}),
        tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE.replace("IMAGE", _IMAGE),
    )
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = LlavaConfig(
        vision_config={**small, "model_type": "clip_vision_model", "image_size": 32, "patch_size": 8},
        text_config=_text_config(len(tokenizer)) | {"model_type": "llama"},
        image_token_index=tokenizer.convert_tokens_to_ids(_IMAGE),
    )
    _save(LlavaForConditionalGeneration, config, processor, folder)


def random_blip(folder: Path) -> None:
    """Write a small BLIP: a ViT, and a decoder in BERT's way, which continues the prompt."""
    from transformers import (
        BertTokenizerFast,
        BlipConfig,
        BlipForConditionalGeneration,
        BlipImageProcessor,
        BlipProcessor,
    )

    words = sorted({word for caption in every_region_caption() for word in caption.split()})
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[DEC]", *words]
    tokenizer = BertTokenizerFast(vocab={word: number for number, word in enumerate(vocabulary)})
    tokenizer.add_special_tokens({"bos_token": "[DEC]"})
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = BlipConfig(
        vision_config={**small, "image_size": 32, "patch_size": 8, "initializer_range": 0.2},
        text_config={
            **small,
            "encoder_hidden_size": 32,
            "vocab_size": len(tokenizer),
            "pad_token_id": 0,
            "bos_token_id": 4,
            "eos_token_id": 3,
            "sep_token_id": 3,
        },
    )
    processor = BlipProcessor(BlipImageProcessor(size={"height": 32, "width": 32}), tokenizer)
    _save(BlipForConditionalGeneration, config, processor, folder)


def random_florence2(folder: Path) -> None:
    """Write a small Florence-2: DaViT and a BART, which ends captions at their limit as the real one does."""
    from transformers import (
        CLIPImageProcessor,
        Florence2Config,
        Florence2ForConditionalGeneration,
        Florence2Processor,
        PreTrainedTokenizerFast,
    )

    trained = _tokenizer(_IMAGE, *(f"<loc_{place}>" for place in range(1000)))
    bounds = {"pad_token": PAD, "bos_token": BOUND, "eos_token": BOUND, "extra_special_tokens": {"image_token": _IMAGE}}
    tokenizer: Any = PreTrainedTokenizerFast(tokenizer_object=trained.backend_tokenizer, **bounds)
    image = CLIPImageProcessor(size={"height": 64, "width": 64}, do_center_crop=False)
    image.image_seq_length = 2
    patterns = {"description_with_bboxes": {"PATTERN": FLORENCE_PATTERN}, "pure_text": {}}
    processor = Florence2Processor(image, tokenizer, post_processor_config=patterns)
    config = Florence2Config(
        vision_config={
            "depths": [1, 1],
            "embed_dim": [16, 32],
            "num_heads": [2, 2],
            "num_groups": [2, 2],
            "patch_size": [7, 3],
            "patch_stride": [8, 8],
            "patch_padding": [3, 1],
            "patch_prenorm": [False, True],
            "window_size": 4,
            "projection_dim": 32,
            "drop_path_rate": 0.0,
        },
        text_config={
            "model_type": "bart",
            "d_model": 32,
            "encoder_layers": 1,
            "decoder_layers": 1,
            "encoder_attention_heads": 2,
            "decoder_attention_heads": 2,
            "encoder_ffn_dim": 64,
            "decoder_ffn_dim": 64,
            "max_position_embeddings": 128,
            "vocab_size": len(tokenizer),
            "pad_token_id": PAD_ID,
            "bos_token_id": BOUND_ID,
            "eos_token_id": BOUND_ID,
            "decoder_start_token_id": BOUND_ID,
            "forced_eos_token_id": BOUND_ID,
            "tie_word_embeddings": False,
        },
        image_token_id=tokenizer.image_token_id,
        tie_word_embeddings=False,
    )
    _save(Florence2ForConditionalGeneration, config, processor, folder)


def random_paligemma(folder: Path) -> None:
    """Write a small PaliGemma: SigLIP's tower and a Gemma."""
    from transformers import (
        PaliGemmaConfig,
        PaliGemmaForConditionalGeneration,
        PaliGemmaProcessor,
        SiglipImageProcessor,
    )

    image = SiglipImageProcessor(size={"height": 32, "width": 32})
    image.image_seq_length = 16
    processor = PaliGemmaProcessor(image, _tokenizer(_IMAGE))
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    vocab_size = len(processor.tokenizer)
    config = PaliGemmaConfig(
        vision_config={**small, "model_type": "siglip_vision_model", "image_size": 32, "patch_size": 8},
        text_config=_text_config(vocab_size) | {"model_type": "gemma", "head_dim": 16, "tie_word_embeddings": False},
        image_token_index=processor.image_token_id,
        vocab_size=vocab_size,
        projection_dim=32,
        hidden_size=32,
        tie_word_embeddings=False,
    )
    _save(PaliGemmaForConditionalGeneration, config, processor, folder)


def _tokenizer(*extra: str) -> Any:
    return train_tokenizer(every_region_caption(), template=f"$A {BOUND}", max_length=512, extra=extra)


def _text_config(vocab_size: int) -> dict[str, Any]:
    return {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "vocab_size": vocab_size,
        "max_position_embeddings": 512,
        "pad_token_id": PAD_ID,
        "bos_token_id": BOUND_ID,
        "eos_token_id": BOUND_ID,
    }


def _save(kind: Any, config: Any, processor: Any, folder: Path) -> None:
    """Write the model with weights large enough for its text to depend on the image; it says no places of itself."""
    torch.manual_seed(0)
    model = kind(config)
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if weights.ndim > 1:
                weights.normal_(std=0.2 if "embed" in name or "shared" in name else weights.shape[-1] ** -0.5)
        places = [
            number for token, number in processor.tokenizer.get_vocab().items() if token.startswith(("<loc", "<seg"))
        ]
        if places:
            model.get_output_embeddings().weight[places] = 0
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
