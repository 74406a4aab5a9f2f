"""Where the time of one caption batch goes: preparation, vision, Q-Former, prefill, decoding steps, the rest.

    python -m benchmarks.caption_parts [--model mini|blip2-opt-6.7b] [--random-weights] [--device cpu|cuda]
                                       [--batch-size 64] [--threads 1] [--runs 5]

Parts are timed by hooks around the model's own modules, on a GPU with a wait at each end, so that their sum is more
than what a batch takes. Operations are counted from the configuration (two a multiply-add). With `--arithmetic` nothing
runs: the least times of the paper's model on GPUs are worked out from its operations and bytes.

Needs what benchmarks.captioner needs.
"""

import argparse
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from benchmarks.captioner import CROP_SIDES, HUB, NEW_TOKENS, architecture_of, captioner_of, crops_of
from benchmarks.report import Row, report
from pipeline.caption.blip2 import Blip2

_PAPER = "blip2-opt-6.7b"
_PARTS = ("vision", "Q-Former", "prefill", "decoding steps")
_GPUS = {"H100": (790, 3.0), "H200": (790, 4.3)}
"""What large products in half precision reach, in TFLOP/s, and what memory gives, in TB/s; published, not measured."""
_BATCHES = (32, 64, 128, 256, 512)


def main() -> None:
    """Measure and report, or work it out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=[*HUB], default="mini")
    parser.add_argument("--random-weights", action="store_true", help="the same architecture, nothing to download")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--dtype", choices=["float32", "float16", "bfloat16"], help="by default what the device wants")
    parser.add_argument("--batch-size", type=int, default=64, help="crops a batch")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of torch")
    parser.add_argument("--runs", type=int, default=5, help="batches, after one that warms up")
    parser.add_argument("--arithmetic", action="store_true", help="work out the paper's model on GPUs instead")
    options = parser.parse_args()
    if options.arithmetic:
        _work_out()
    else:
        _measure(options)


def _measure(options: argparse.Namespace) -> None:
    captioner = captioner_of(options)
    crops = crops_of(options.batch_size, *CROP_SIDES[options.model])
    clock = _Clock(options.device)
    found: list[dict[str, float]] = []
    with clock.watching(captioner):
        for _ in range(options.runs + 1):
            clock.seconds.clear()
            with clock.timed("preparation"):
                prepared = captioner.prepare(crops, [None] * len(crops))
            with clock.timed("call"):
                captioner.generate(prepared)
            parts = dict(clock.seconds)
            parts["between, scores and text"] = parts["call"] - sum(parts[name] for name in _PARTS)
            found.append(parts)
    operations = flops(captioner._model.config)
    rows = []
    for name in ("preparation", *_PARTS, "between, scores and text", "call"):
        seconds = [parts[name] for parts in found[1:]]
        rate = len(crops) * operations.get(name, 0) / statistics.median(seconds) / 1e9
        rows.append(Row(name=name, seconds=seconds, items=len(crops), note=f"{rate:,.0f} GFLOP/s" if rate else ""))
    extra = {"operations a crop, GFLOP": {name: round(value / 1e9, 3) for name, value in operations.items()}}
    report(f"one batch of {len(crops)} crops, {options.model} on {options.device}", rows, extra)


class _Clock:
    """Seconds by part, of one batch."""

    def __init__(self, device: str) -> None:
        self._is_cuda = device == "cuda"
        self._began: dict[str, float] = {}
        self.seconds: dict[str, float] = {}

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Add what the body takes."""
        self.begin(name)
        yield
        self.end(name)

    def begin(self, name: str) -> None:
        """Start a part's clock, once the device has done what was asked before."""
        if self._is_cuda:
            torch.cuda.synchronize()
        self._began[name] = time.perf_counter()

    def end(self, name: str) -> None:
        """Add what has passed since its begin."""
        if self._is_cuda:
            torch.cuda.synchronize()
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - self._began[name]

    @contextmanager
    def watching(self, captioner: Blip2) -> Iterator[None]:
        """Time the model's parts by hooks. The language model's first call of a batch is the prefill."""
        model = captioner._model
        named = {"vision": model.vision_model, "Q-Former": model.qformer}
        hooks: list[Any] = []
        for name, part in named.items():
            hooks.append(part.register_forward_pre_hook(lambda *_, name=name: self.begin(name)))
            hooks.append(part.register_forward_hook(lambda *_, name=name: self.end(name)))
        hooks.append(model.language_model.register_forward_pre_hook(lambda *_: self.begin(self._step())))
        hooks.append(model.language_model.register_forward_hook(lambda *_: self.end(self._step())))
        yield
        for hook in hooks:
            hook.remove()

    def _step(self) -> str:
        return "decoding steps" if "prefill" in self.seconds else "prefill"


def flops(config: Any) -> dict[str, float]:
    """Return the operations of each part, a crop; decoding is all `NEW_TOKENS` - 1 steps together. OPT heads only."""
    vision, qformer, text = config.vision_config, config.qformer_config, config.text_config
    tokens, width = (vision.image_size // vision.patch_size) ** 2 + 1, vision.hidden_size
    block = 2 * tokens * (4 * width**2 + 2 * width * vision.intermediate_size) + 4 * tokens**2 * width
    patches = 2 * (tokens - 1) * 3 * vision.patch_size**2 * width
    queries, inner = config.num_query_tokens, qformer.hidden_size
    own = 2 * queries * (4 * inner**2 + 2 * inner * qformer.intermediate_size) + 4 * queries**2 * inner
    keys = 2 * tokens * 2 * qformer.encoder_hidden_size * inner
    cross = 2 * queries * 2 * inner**2 + keys + 4 * queries * tokens * inner
    num_cross = -(-qformer.num_hidden_layers // qformer.cross_attention_frequency)
    matrices = text.num_hidden_layers * (4 * text.hidden_size**2 + 2 * text.hidden_size * text.ffn_dim)
    head, begin = 2 * text.vocab_size * text.word_embed_proj_dim, queries + 1

    def language(count: int, seen: int) -> float:
        return 2 * count * matrices + 4 * count * seen * text.hidden_size * text.num_hidden_layers + head

    return {
        "vision": vision.num_hidden_layers * block + patches,
        "Q-Former": qformer.num_hidden_layers * own + num_cross * cross,
        "prefill": language(begin, begin),
        "decoding steps": sum(language(1, begin + step) for step in range(1, NEW_TOKENS)),
    }


def _work_out() -> None:
    """Print the least time of a batch of the paper's model: its operations, or the bytes that a step reads."""
    config = architecture_of(_PAPER)
    operations, text = flops(config), config.text_config
    matrices = text.num_hidden_layers * (4 * text.hidden_size**2 + 2 * text.hidden_size * text.ffn_dim)
    weights = 2 * (matrices + text.vocab_size * text.word_embed_proj_dim)
    a_crop = (config.num_query_tokens + 1 + NEW_TOKENS / 2) * 2 * text.num_hidden_layers * text.hidden_size * 2
    print(f"{_PAPER}, {NEW_TOKENS} tokens, half precision; GFLOP a crop: "
          + ", ".join(f"{name} {value / 1e9:.1f}" for name, value in operations.items()))  # fmt: skip
    print("GPU, batch, ms: " + ", ".join(_PARTS) + ", crops/s at most")
    for gpu, (tflops, tb_per_s) in _GPUS.items():
        for size in _BATCHES:
            ms = {name: size * operations[name] / tflops / 1e9 for name in _PARTS}
            read = (NEW_TOKENS - 1) * (weights + size * a_crop) / tb_per_s / 1e9
            ms["decoding steps"] = max(ms["decoding steps"], read)
            times = " ".join(f"{value:8.1f}" for value in ms.values())
            print(f"{gpu} {size:5d} {times} {1e3 * size / sum(ms.values()):8.0f}")


if __name__ == "__main__":
    main()
