"""What captioners that generate text with transformers share: decoding settings, loading, captions from tokens."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pipeline.backends import check_ranges, require
from pipeline.caption.base import Watched
from pipeline.caption.thoughts import is_tag
from pipeline.models.pretrained import from_pretrained
from pipeline.models.weights import ModelFiles
from pipeline.sample import Caption

if TYPE_CHECKING:
    from torch import Tensor

Unfinished = Literal["dead", "keep"]
Dtype = Literal["float32", "float16", "bfloat16", "int8"]

_SAMPLING = ("temperature", "top_p", "top_k", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff")
_FORCED_END = "forced_eos_token_id"
"""What ends a caption at its limit, so that a cut one would look whole."""
_PARTS = ("language_model", "text_decoder")
"""What of a model may generate, with settings of its own."""


@dataclass(frozen=True, kw_only=True)
class Decoding(Watched):
    """How a caption is searched for: greedily or with beams. Sampling is left out: a region has one caption."""

    max_new_tokens: int = 30
    """Longest caption, in tokens."""
    min_new_tokens: int = 0
    """Tokens before which a caption may not end."""
    num_beams: int = 1
    """Beams of the search; 1 is greedy."""
    length_penalty: float = 1.0
    """Above 0, beams prefer longer captions, below 0 shorter ones."""
    repetition_penalty: float = 1.0
    """What tokens that were used already (the prompt's too) are divided by; 1 is none."""
    no_repeat_ngram_size: int = 0
    """Length in tokens of the sequences that may not come twice; 0 allows all."""

    def __post_init__(self) -> None:
        least = {"batch_size": 1, "max_new_tokens": 1, "min_new_tokens": 0, "num_beams": 1, "no_repeat_ngram_size": 0}
        check_ranges(self, flag="--caption", least=least)
        if self.min_new_tokens > self.max_new_tokens:
            raise ValueError(
                f"--caption.min-new-tokens is {self.min_new_tokens}, more than --caption.max-new-tokens "
                f"({self.max_new_tokens})"
            )
        if self.repetition_penalty <= 0:
            raise ValueError(f"--caption.repetition-penalty is {self.repetition_penalty}, but must be above 0")

    def arguments(self) -> dict[str, Any]:
        """Return what `generate` is called with: these settings, and for beams that it returns its logits.

        All are given, so that what a model's own `generation_config.json` says has no part in the result.
        """
        only_with_beams = {"length_penalty": self.length_penalty} if self.num_beams > 1 else {}
        return only_with_beams | {
            "max_new_tokens": self.max_new_tokens,
            "min_new_tokens": self.min_new_tokens or None,
            "num_beams": self.num_beams,
            "repetition_penalty": self.repetition_penalty,
            "no_repeat_ngram_size": self.no_repeat_ngram_size,
            "do_sample": False,
            "output_logits": self.num_beams > 1,
            "return_dict_in_generate": True,
        }


def check_dtype(dtype: Dtype, captioner: str) -> None:
    """Raise ImportError, with the line that installs it, where `dtype` needs a package that is missing."""
    for package in ("bitsandbytes", "accelerate") if dtype == "int8" else ():
        install = "pip install bitsandbytes accelerate"
        require(package, what=f"--caption.dtype int8 of {captioner}", install=install)


def libraries(dtype: Dtype) -> dict[str, str]:
    """Return the packages that have a part in what a model of `dtype` says, as the provenance calls them."""
    names = ("torch", "transformers", *(("bitsandbytes",) if dtype == "int8" else ()))
    return {name: name for name in names}


def load_model(kind: Any, files: ModelFiles, *, dtype: Dtype, device: str, **arguments: Any) -> Any:
    """Return the model of `files` as `kind` (a class of transformers), on the device, in eval mode.

    int8 holds the matrices in 8 bits, by bitsandbytes, and runs in float16. Settings for sampling that come with the
    model are forgotten, as captions are not sampled, and so is an end that is forced at the limit of tokens. Raises
    WeightsError where weights are not all there.
    """
    import transformers

    if dtype == "int8":
        quantization: Any = transformers.BitsAndBytesConfig
        arguments |= {"quantization_config": quantization(load_in_8bit=True), "device_map": {"": device}}
    model = from_pretrained(kind, files, flag="--caption.model", dtype=torch_dtype(dtype), **arguments)
    if dtype != "int8":  # which `from_pretrained` has put there, and which cannot be moved
        model = model.to(device)
    for part in _parts(model):
        settings = getattr(part, "generation_config", None)
        for name in (*_SAMPLING, _FORCED_END) if settings is not None else ():
            setattr(settings, name, None)
    return model.eval()


def _parts(model: Any) -> list[Any]:
    """Return the model, and what of it may be what generates."""
    return [part for part in (model, *(getattr(model, name, None) for name in _PARTS)) if part is not None]


def torch_dtype(dtype: Dtype) -> Any:
    """Return the torch dtype that a model of `dtype` computes in."""
    import torch

    return torch.float16 if dtype == "int8" else getattr(torch, dtype)


def thought_tags(tokenizer: Any) -> dict[int, str]:
    """Return the special tokens, by id, that tell thoughts from an answer, and that decoding would skip."""
    added = tokenizer.added_tokens_decoder.items()
    return {number: token.content for number, token in added if token.special and is_tag(token.content)}


def answers_of(model: Any, inputs: Mapping[str, Any], decoding: Decoding) -> "tuple[Tensor, Tensor]":
    """Return the new tokens of `generate`, `[B, T]` int64, and the log probabilities of them, `[B, T]` float32.

    The probabilities are by the raw logits. In a greedy search each step's are given up for the chosen token's: kept,
    they take as much as B x T x vocabulary floats.
    """
    if decoding.num_beams > 1:
        output = model.generate(**inputs, **decoding.arguments())
        rows = output.beam_indices  # which row of each step's logits a token was chosen from
        length = int((rows >= 0).sum(dim=1).max())
        tokens = output.sequences[:, -length:]
        return tokens, _logs_of_beams(output.logits[:length], tokens, rows[:, :length])
    chosen = _ChosenLogs()
    hooks = [part.register_forward_hook(chosen.keep) for part in _parts(model)]  # one of them has the logits
    try:
        output = model.generate(**inputs, **decoding.arguments(), stopping_criteria=[chosen])
    finally:
        for hook in hooks:
            hook.remove()
    return output.sequences[:, -len(chosen.steps) :], chosen.logs()


class _ChosenLogs:
    """Of each step of a greedy search, the log probability of the token that it chose.

    It is called by `generate` as one of its stopping criteria, which never stops.
    """

    def __init__(self) -> None:
        self.steps: list[Tensor] = []
        self._logits: Tensor | None = None

    def keep(self, part: Any, inputs: Any, output: Any) -> None:
        """Take the logits of a step, as a forward hook of the part of the model that has them."""
        if getattr(output, "logits", None) is not None:
            self._logits = output.logits[:, -1]

    def __call__(self, input_ids: "Tensor", scores: Any, **_: Any) -> "Tensor":
        import torch

        assert self._logits is not None
        logs = self._logits.float().log_softmax(dim=-1)
        self._logits = None
        self.steps.append(logs.gather(1, input_ids[:, -1:])[:, 0])
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)

    def logs(self) -> "Tensor":
        """Return the log probabilities, `[B, T]`."""
        import torch

        return torch.stack(self.steps, dim=1)


def _logs_of_beams(logits: "Sequence[Tensor]", tokens: "Tensor", rows: "Tensor") -> "Tensor":
    """Return the log probabilities of tokens `[B, T]`, by the `rows` of each step's logits; any where a row is -1."""
    import torch

    rows = rows.clamp(min=0)
    steps = [step.float().log_softmax(dim=-1)[rows[:, at], tokens[:, at]] for at, step in enumerate(logits)]
    return torch.stack(steps, dim=1)


def captions_of(
    tokens: "Tensor", logs: "Tensor", tokenizer: Any, generation_config: Any, *, tags: Mapping[int, str]
) -> list[Caption]:
    """Return the `B` captions of what `answers_of` returned; `tags` are the tokenizer's `thought_tags`, which stay in.

    A score is the geometric mean of the probabilities, 0 to 1, that the model gave to the caption's tokens, its end
    included; tokens after that are padding. A caption without an end was cut at the limit of tokens.
    """
    import torch

    ends = generation_config.eos_token_id
    is_end = torch.isin(tokens, torch.as_tensor([] if ends is None else ends, device=tokens.device))
    is_token = torch.cumsum(is_end.int(), dim=1) - is_end.int() == 0
    scores = (torch.where(is_token, logs, 0).sum(dim=1) / is_token.sum(dim=1)).exp()
    cut = "it is longer than --caption.max-new-tokens"
    return [
        Caption(text=decoded(row, tokenizer, tags).strip(), score=score, unfinished=None if has_end else cut)
        for row, score, has_end in zip(tokens.tolist(), scores.tolist(), is_end.any(dim=1).tolist(), strict=True)
    ]


def decoded(row: list[int], tokenizer: Any, tags: Mapping[int, str]) -> str:
    """Return the text of some tokens without the special ones, but for those in `tags`."""
    parts = [(tag, [*tokens]) for tag, tokens in itertools.groupby(row, key=tags.get)]
    return "".join(
        tag * len(tokens) if tag else tokenizer.decode(tokens, skip_special_tokens=True) for tag, tokens in parts
    )
