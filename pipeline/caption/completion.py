"""What an answer of status 200 holds: a completion, or what servers and gateways put in the place of one."""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from openai._legacy_response import LegacyAPIResponse
    from openai.types.chat import ChatCompletion, ChatCompletionMessage
    from openai.types.chat.chat_completion import Choice

_ENDED = ("stop", "eos", "end", "complete", "finish")
"""How the reasons begin that servers give where the model has ended its answer; anything else has cut it."""
_FAILED = ("abort", "error", "cancel")
"""How those begin that tell of the server, not of the answer: vLLM and SGLang abort what is under way when they stop
or pause, and gateways report the errors of those behind them so. Whatever text there is, is a part of one."""
_TEXTS = ("text", "output_text")
_THOUGHTS = ("thinking", "reasoning")
"""Types of the parts in which some servers send an answer."""


def first_choice(answer: "LegacyAPIResponse[ChatCompletion]") -> "Choice":
    """Return the first choice in an answer of status 200.

    Raises openai's APIResponseValidationError where it has none, or one that the server has broken off: gateways report
    the errors of those behind them so, filters of content leave nothing, and a body can be cut off.
    """
    import openai
    from openai.types.chat import ChatCompletionMessage

    try:
        completion = answer.parse()
    except (ValueError, RecursionError):  # no JSON, or brackets without end
        completion = None
    choices = getattr(completion, "choices", None)
    choice: Choice | None = choices[0] if isinstance(choices, list) and choices else None
    message = getattr(choice, "message", None)
    told: object
    if choice is None or not isinstance(message, ChatCompletionMessage) or not _is_understood(message):
        text = answer.http_response.text or "an empty body"
        told, wrong = completion, f"something else than a chat completion: {text}"
    elif str(choice.finish_reason).lower().startswith(_FAILED):
        told, wrong = choice, f"the server broke the answer off, with finish_reason {choice.finish_reason!r}"
    else:
        return choice
    error = getattr(told, "error", None)  # its message, where there is one, is what users are told
    raise openai.APIResponseValidationError(answer.http_response, error, message=wrong)


def text_of(message: "ChatCompletionMessage") -> str:
    """Return what a message of `first_choice` says; what the model thought, marked as that, where it says nothing."""
    parts: Any = message.content
    if not isinstance(parts, list):
        parts = [{"type": "text", "text": parts}]
    text = "".join(_words(part.get("text")) for part in parts if part["type"] in _TEXTS)
    if text:
        return text
    thoughts = [getattr(message, name, None) for name in ("reasoning_content", "reasoning")]
    thoughts += [part.get(part["type"]) for part in parts if part["type"] in _THOUGHTS]
    return next((f"<think>{said}</think>" for said in map(_words, thoughts) if said), "")


def refusal_of(message: "ChatCompletionMessage") -> str | None:
    """Return the words in which the model refuses, where the server says so apart from the answer; else None."""
    refusal: Any = message.refusal  # servers have texts, lists, objects, and true and false for it
    return _words(refusal) or str(refusal) if refusal else None


def cut_of(choice: "Choice") -> str | None:
    """Return what cut the answer before its end; None where the model ended it."""
    reason = str(choice.finish_reason or "stop")
    return None if reason.lower().startswith(_ENDED) else f"the server ended it with finish_reason {reason!r}"


def score_of(choice: "Choice") -> float | None:
    """Return the mean probability (geometric, 0 to 1) of the tokens; None where the server does not tell that of each.

    Some tell null for one, NaN, or all of them in the form of another interface.
    """
    logs: list[Any] = [getattr(token, "logprob", None) for token in getattr(choice.logprobs, "content", None) or ()]
    if not logs or not all(isinstance(log, int | float) and log <= 0 for log in logs):
        return None
    return math.exp(sum(logs) / len(logs))


def _is_understood(message: "ChatCompletionMessage") -> bool:
    content: Any = message.content
    if isinstance(content, list):
        return all(isinstance(part, dict) and isinstance(part.get("type"), str) for part in content)
    return isinstance(content, str | None)


def _words(said: object) -> str:
    """Return a text, or those of the parts it comes in."""
    return "".join(_texts(said))


def _texts(said: object) -> Iterator[str]:
    match said:
        case str():
            yield said
        case list():
            for one in said:
                yield from _texts(one)
        case {"text": text}:
            yield from _texts(text)
