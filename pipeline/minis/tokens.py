"""The small byte-level BPE that the captioner and the CLIP read and write captions with."""

from collections.abc import Sequence

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

PAD, BOUND = "<pad>", "</s>"
PAD_ID, BOUND_ID = 0, 1


def train_tokenizer(
    captions: Sequence[str], *, template: str, max_length: int, extra: Sequence[str] = ()
) -> PreTrainedTokenizerFast:
    """Return a tokenizer trained on `captions`: each of their words becomes one token, any text can be read.

    `template` says what surrounds a text (`$A`), such as `</s> $A`; `extra` are further special tokens.
    """
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=640,
        special_tokens=[PAD, BOUND, *extra],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator(captions, trainer)
    bpe.post_processor = processors.TemplateProcessing(single=template, special_tokens=[(BOUND, BOUND_ID)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe, pad_token=PAD, bos_token=BOUND, eos_token=BOUND, model_max_length=max_length
    )
    tokenizer.add_special_tokens({"additional_special_tokens": list(extra)})
    return tokenizer
