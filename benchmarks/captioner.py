"""Captions of crops batched over images, as the job makes them, against a `generate` call per image; same model.

    python -m benchmarks.captioner [--model mini|blip2-opt-2.7b|blip2-opt-6.7b] [--random-weights]
                                   [--device cpu|cuda] [--regions 1 4 16] [--crops 256] [--runs 5]

Every caption has 12 new tokens, whatever the weights would say, so that random weights cost what trained ones do. Both
ways use `pipeline.caption.blip2` in the same process, one after the other, on the same crops; the batched one prepares
a batch while the model has the one before it where the job does so too, on a GPU or with one CPU thread. Utilisation is
the share of the wall time in the model's calls, and on a GPU also the driver's own figure.

Needs torch, transformers, NumPy, Pillow, msgspec and OpenCV; neither Beam nor Arrow nor rich.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image
from tokenizers import Tokenizer, models

from benchmarks.report import Row, gpu_busy, measure, peak_gib, report
from pipeline.caption.blip2 import Blip2, Blip2Config, Loaded
from pipeline.models.batches import Batcher
from pipeline.models.device import Device, leaves_cpu_free
from pipeline.models.shipped import mini_folder
from pipeline.models.weights import ModelFiles
from pipeline.sample import Caption, Crop
from schemas.reasons import Stage

NEW_TOKENS = 12
_REGIONS_OF_GOAL = 4
_CPU_GOAL, _GPU_GOAL = 1 / 3, 1 / 8
_H200_REGIONS_PER_S = 325.0
_MINI = "mini"
_PAPER = "blip2-opt-6.7b"
_OPT = {"blip2-opt-2.7b": (2560, 32), _PAPER: (4096, 32)}
"""Width and layers of the language models; a layer's inner width is four times the outer one, a head's 80 and 128."""
HUB = {name: f"Salesforce/{name}-coco" for name in _OPT} | {_MINI: _MINI}
_GAIN, _EMBEDDING_STD = 1.5, 0.2
"""Of random weights: the deviation of a matrix times the root of its inputs, and that of an embedding."""
CROP_SIDES = {_MINI: (16, 80)} | dict.fromkeys(_OPT, (64, 400))
"""Shortest and longest side of the crops, in pixels."""


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=[*HUB], default=_MINI)
    parser.add_argument("--random-weights", action="store_true", help="the same architecture, nothing to download")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--dtype", choices=["float32", "float16", "bfloat16"], help="by default what the device wants")
    parser.add_argument("--regions", type=int, nargs="+", default=[1, 4, 16], help="regions an image")
    parser.add_argument("--crops", type=int, default=256, help="a round")
    parser.add_argument("--batch-size", type=int, default=64, help="crops a batch; the job's is 256")
    parser.add_argument("--baseline", type=int, default=32, help="images for a call each; their time is scaled up")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of torch")
    parser.add_argument("--runs", type=int, default=5, help="rounds, after one that warms up")
    options = parser.parse_args()
    captioner = captioner_of(options)
    for regions in options.regions:
        crops = crops_of(options.crops, *CROP_SIDES[options.model])
        images = [crops[first : first + regions] for first in range(0, len(crops), regions)]
        _compare(_Ways(captioner=captioner, images=images, num_calls=options.baseline), regions, options)


def captioner_of(options: argparse.Namespace) -> Blip2:
    """Return the captioner that the options ask for; it writes `NEW_TOKENS` tokens, no more and no fewer."""
    config = Blip2Config(
        model=HUB[options.model],
        dtype=options.dtype or ("float32" if options.device == "cpu" else "float16"),
        max_new_tokens=NEW_TOKENS,
        min_new_tokens=NEW_TOKENS,
        batch_size=options.batch_size,
    )
    device = Device(name=options.device, torch_threads=options.threads)
    return _random_blip2(config, options.model, device) if options.random_weights else Blip2(config, device=device)


def _random_blip2(config: Blip2Config, model: str, device: Device) -> Blip2:
    """Return the captioner around a model that was never on a disk: its constructor finds and loads nothing."""
    files = ModelFiles(path=Path(model), name=f"{model}, random", revision=None, sha256=None)

    def load(config: Blip2Config, device: str) -> Loaded:
        drawn = _random_model(architecture_of(model), getattr(torch, config.dtype), device)
        return Loaded(files=files, processor=processor_of(model), model=drawn)

    return Blip2(config, device=device, load=load)


def _random_model(config: Any, dtype: torch.dtype, device: str) -> Any:
    """Return a model whose weights are drawn where they stay, with activations near 1, so that captions differ.

    The published configuration would start the vision tower at a deviation of 1e-10, which is all zeros in float16:
    kernels run faster on zeros, and every crop would have the same caption.
    """
    torch.manual_seed(0)
    with torch.device(device):
        model = transformers.AutoModelForImageTextToText.from_config(config, dtype=dtype)
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if weights.ndim > 1:
                embeds = "embed" in name or "token" in name
                weights.normal_(std=_EMBEDDING_STD if embeds else _GAIN * weights[0].numel() ** -0.5)
    return model.eval()


def architecture_of(model: str) -> Any:
    """Return the configuration of the mini, or of BLIP-2 as published: ViT-g, a Q-Former with 32 queries, OPT."""
    if model == _MINI:
        return transformers.Blip2Config.from_pretrained(mini_folder("captioner"))
    width, layers = _OPT[model]
    opt = {
        "model_type": "opt",
        "hidden_size": width,
        "word_embed_proj_dim": width,
        "ffn_dim": 4 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": 32,
        "vocab_size": 50304,
        "bos_token_id": 2,
        "eos_token_id": 50118,
        "pad_token_id": 1,
    }
    return transformers.Blip2Config(text_config=opt, num_query_tokens=32, image_token_index=50265)


def processor_of(model: str) -> Any:
    """Return the mini's processor, or one as published: crops to 224 x 224; its vocabulary holds numbers."""
    if model == _MINI:
        return transformers.Blip2Processor.from_pretrained(mini_folder("captioner"))
    vocabulary = {f"t{token}": token for token in range(50304) if token != 50265} | {"<image>": 50265}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="t3"))
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words, unk_token="t3", pad_token="t1")
    clip = {"image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711]}
    pixels = transformers.BlipImageProcessor(size={"height": 224, "width": 224}, **clip)
    return transformers.Blip2Processor(pixels, tokenizer, num_query_tokens=32)


def crops_of(count: int, shortest: int, longest: int) -> list[Crop]:
    """Return crops of mixed sizes whose colours differ: noise alone looks the same once it is scaled."""
    generator = np.random.default_rng(0)
    crops = []
    for number in range(count):
        height, width = (int(side) for side in generator.integers(shortest, longest + 1, 2))
        coarse = Image.fromarray(generator.integers(0, 256, (3, 3, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), dtype=np.float32)
        pixels = (0.85 * smooth + generator.uniform(0, 38, (height, width, 3))).astype(np.uint8)
        box = (0.0, 0.0, float(width), float(height))
        crop = Crop(region_id=f"{number:016x}", pixels=pixels, box=box, image_width=640, image_height=480, label=None)
        crops.append(crop)
    return crops


@dataclass
class _Ways:
    """The ways to caption the crops of `images`."""

    captioner: Blip2
    images: list[list[Crop]]
    num_calls: int
    """Images that get a call each."""
    model_s: dict[str, float] = field(default_factory=lambda: {"batched": 0.0, "per image": 0.0})
    """Seconds in the model's calls, by way; captions are text when they end, so no kernel is left running."""

    def batched(self) -> list[str]:
        """Caption all crops in whole batches."""
        captioner, generate = self.captioner, self._timed("batched")

        def prepare(batch: Sequence[Crop]) -> Any:
            return captioner.prepare(batch, [None] * len(batch))

        ahead = leaves_cpu_free(torch.get_num_threads())
        batcher: Batcher[Crop, Caption] = Batcher(
            generate if ahead else lambda batch: generate(prepare(batch)),
            name=captioner.name,
            stage=Stage.CAPTION,
            batch_size=captioner.batch_size,
            prepare=prepare if ahead else None,
        )
        return [_text(caption) for _, caption in batcher.run(crop for image in self.images for crop in image)]

    def per_image(self) -> list[str]:
        """Caption the crops of the first `num_calls` images, each image by a call of its own."""
        generate, prepare = self._timed("per image"), self.captioner.prepare
        captions = (generate(prepare(crops, [None] * len(crops))) for crops in self.images[: self.num_calls])
        return [_text(caption) for of_image in captions for caption in of_image]

    def _timed(self, way: str) -> Callable[[Any], Sequence[Caption]]:
        def generate(prepared: Any) -> Sequence[Caption]:
            started = time.perf_counter()
            try:
                return self.captioner.generate(prepared)
            finally:
                self.model_s[way] += time.perf_counter() - started

        return generate


def _text(caption: object) -> str:
    if not isinstance(caption, Caption):
        raise SystemExit(f"a crop has no caption: {caption}")
    return caption.text


def _compare(ways: _Ways, regions: int, options: argparse.Namespace) -> None:
    texts, own = ways.batched(), ways.per_image()  # warms both up
    same = sum(ours == theirs for ours, theirs in zip(texts, own, strict=False)) / len(own)
    ways.model_s = dict.fromkeys(ways.model_s, 0.0)
    if options.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    seconds = measure({"batched": ways.batched, "per image": ways.per_image}, options.runs)
    busy = {way: round(spent / sum(seconds[way]), 3) for way, spent in ways.model_s.items()}
    each = [spent * len(texts) / len(own) for spent in seconds["per image"]]
    on_gpu = options.device == "cuda"
    goal = (_GPU_GOAL if on_gpu else _CPU_GOAL) if regions == _REGIONS_OF_GOAL else None
    rate_goal = _H200_REGIONS_PER_S if on_gpu and options.model == _PAPER else None
    rows = [
        Row(name="batched over images", seconds=seconds["batched"], against=each, goal=goal, items=len(texts),
            rate_goal=rate_goal),
        Row(name="a call per image", seconds=each, items=len(texts), note="scaled up" if len(own) < len(texts) else ""),
    ]  # fmt: skip
    extra = {
        "times the rate of a call per image": round(1 / (rows[0].ratio or 1), 2),
        "utilisation (share of the wall time in the model's calls)": busy,
        "GPU busy, batched (nvidia-smi)": gpu_busy(ways.batched) if on_gpu else None,
        "peak memory GiB": peak_gib(options.device),
        "same captions both ways": round(same, 3),
        "different captions": len(set(texts)),
        "model": options.model + (", random weights" if options.random_weights else ""),
        "dtype, batch size, torch threads": [ways.captioner.config.dtype, options.batch_size, options.threads],
    }
    report(f"captions of {NEW_TOKENS} tokens on {options.device}, {regions} regions an image", rows, extra)


if __name__ == "__main__":
    main()
