"""What a chat model thought before it answered, in the tags that the trade has for it: no part of a caption."""

import re

_NAME = (
    r"(?:\w+[:_])?(?:think|thinking|thoughts?|reason|reasoning|reflection|analysis|scratchpad|monologue|cot)"
    r"(?:_(?:process|content|steps?|text|trace))?"
)
_CHANNEL = r"<\|channel\|?>\s*(?:analysis|thought|commentary)\b"
_FINAL = r"<\|channel\|?>\s*final\b"
"""Some models have channels instead, of which one is the answer's."""
OPEN = "|".join(
    (
        rf"<{_NAME}\b[^<>]*>",
        rf"\[{_NAME}\]",
        rf"\u25c1{_NAME}\u25b7",
        rf"<\|(?:start_|begin_of_)?{_NAME}(?:_start)?\|>",
        r"<unused94>",
        _CHANNEL,
    )
)
"""How thoughts begin."""
CLOSE = "|".join(
    (
        rf"</{_NAME}\s*>",
        rf"\[/{_NAME}\]",
        rf"\u25c1/{_NAME}\u25b7",
        rf"<\|(?:/|end_of_|end_){_NAME}\|>|<\|{_NAME}_end\|>",
        r"<unused95>",
        r"<channel\|>",
        _FINAL,
    )
)
"""How they end."""
_BARE_CHANNELS = re.compile(r"\A.*assistantfinal(?:message)?|\A\s*(?:analysis|commentary)(?=[A-Z]).*", re.DOTALL)
"""What is left of channels where a server took the special tokens out: `analysisThe user ...assistantfinalA dog`."""
_FLAGS = re.IGNORECASE | re.DOTALL
_THOUGHT = re.compile(rf"{_CHANNEL}\s*<\|message\|>.*?<\|end\|>|(?:{OPEN}).*?(?:{CLOSE})", _FLAGS)
_CLOSE = re.compile(CLOSE, _FLAGS)
_UNCLOSED = re.compile(f"(?:{OPEN}).*", _FLAGS)


def without_thoughts(text: str) -> str:
    """Return what was said when the thinking was done: nothing where it never was.

    The opening tag can have stood in the prompt, and the closing one be lacking where the tokens ran out.
    """
    text = _BARE_CHANNELS.sub("", text)
    if not any(sign in text for sign in "<[\u25c1"):
        return text
    return _UNCLOSED.sub("", _CLOSE.split(_THOUGHT.sub(" ", text))[-1])


def is_tag(token: str) -> bool:
    """Return whether a token begins or ends thoughts."""
    return bool(re.fullmatch(f"{OPEN}|{CLOSE}", token, _FLAGS))
