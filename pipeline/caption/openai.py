"""Models behind any server that speaks OpenAI's chat completions: vLLM, LMDeploy, SGLang, a hosted service.

This is also how InternLM-XComposer, the paper's other captioner, is reached: its own code needs an old transformers, so
it runs in LMDeploy's environment, apart from this one:

    pip install lmdeploy && lmdeploy serve api_server internlm/internlm-xcomposer2-vl-7b --server-port 23333
    fineclip annotate INPUT OUTPUT --captioner openai

or, for another model, `vllm serve Qwen/Qwen2-VL-7B-Instruct` with `--caption.url http://127.0.0.1:8000/v1` and
`--caption.model Qwen/Qwen2-VL-7B-Instruct`.
"""

import base64
import io
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from pipeline.backends import require
from pipeline.caption.base import CaptionerBase
from pipeline.caption.pixels import scaled
from pipeline.caption.secrets import api_key, passwords, without_userinfo
from pipeline.models.device import CPU, Device
from pipeline.models.licenses import OPENAI_CLIENT, Licensed, model_license
from pipeline.sample import Caption, Crop, Drop, Pixels
from schemas.reasons import Reason, Stage

if TYPE_CHECKING:
    from openai._legacy_response import LegacyAPIResponse
    from openai.types.chat import ChatCompletion
    from openai.types.chat.chat_completion import Choice

_NO_KEY = "none"
"""What a server that asks for no key is given, since the client insists on one."""
_CONNECT_S = 10.0
_NOT_OUTPUT = (
    "url",
    "api_key_env",
    "concurrency",
    "max_requests_per_minute",
    "request_timeout_s",
    "patience_s",
    "tries",
    "license",
    "batch_size",
)
"""Settings that decide no caption: the data set is the same whichever server gave the model's answers."""


@dataclass(frozen=True, kw_only=True)
class OpenaiConfig:
    """Settings of `openai`."""

    url: str = "http://127.0.0.1:23333/v1"
    """The server's base URL, which ends in /v1."""
    model: str = "internlm/internlm-xcomposer2-vl-7b"
    """The model's name on the server."""
    api_key_env: str | None = None
    """Name of the environment variable that holds the key, not the key; none is sent when not given."""
    prompt: str = "Describe this image in one sentence."
    """What the model is asked about each crop; the paper's words."""
    max_new_tokens: int = 64
    """Longest caption, in tokens."""
    temperature: float = 0.0
    """Of the sampling; 0 takes the likeliest token."""
    seed: int | None = 0
    """Of the sampling, for servers that take one."""
    logprobs: bool = False
    """Ask for the tokens' probabilities; their mean is the score. Not all servers give them."""
    image_format: Literal["jpeg", "png"] = "jpeg"
    """How crops are sent."""
    jpeg_quality: int = 95
    """Of the crops sent, 1 to 100."""
    min_side: int = 28
    """Pixels; crops with a shorter side are scaled up to it, since models refuse images smaller than their patches."""
    max_side: int = 1024
    """Pixels; crops with a longer side are scaled down to it."""
    concurrency: int = 16
    """Requests under way at once, by each worker."""
    max_requests_per_minute: int | None = None
    """Rate limit of each worker."""
    request_timeout_s: float = 60.0
    """Seconds of silence after which a request is given up and sent again."""
    tries: int = 3
    """Times that a crop is sent again while the server answers others; then it is dead."""
    patience_s: float = 300.0
    """Seconds that a server which is gone, or still starting, is waited for; then the run stops, to be resumed."""
    license: str | None = None
    """Licence of the weights, where you know it and the ledger does not; it goes into the provenance."""
    batch_size: int = 64
    """Crops that are sent before the next ones are cut."""

    def __post_init__(self) -> None:
        leasts = {
            "max_new_tokens": 1,
            "temperature": 0,
            "jpeg_quality": 1,
            "concurrency": 1,
            "tries": 0,
            "patience_s": 0,
            "batch_size": 1,
        }
        for name, least in leasts.items():
            if getattr(self, name) < least:
                raise ValueError(f"--caption.{name} is {getattr(self, name)}, but must be at least {least}")
        for name in ("max_requests_per_minute", "request_timeout_s"):
            if (getattr(self, name) or 1) < 0 or getattr(self, name) == 0:
                raise ValueError(f"--caption.{name} is {getattr(self, name)}, but must be above 0")
        if not 1 <= self.min_side <= self.max_side:
            raise ValueError(
                f"--caption.min_side is {self.min_side} and --caption.max_side {self.max_side}: "
                "the first must be at least 1 and not above the second"
            )
        if not self.url.startswith(("http://", "https://")):
            raise ValueError(f"--caption.url {without_userinfo(self.url)!r}: must start with http:// or https://")
        if self.api_key_env is not None and not self.api_key_env.isidentifier():
            raise ValueError("--caption.api_key_env takes the name of an environment variable, not the key itself")


@dataclass(frozen=True)
class _Request:
    region_id: str
    image_url: str
    """The crop itself, as a data URL."""
    prompt: str | None


class Openai(CaptionerBase):
    """Asks a server about each crop. `caption_score` is the mean probability (geometric, 0 to 1) of the tokens."""

    name: ClassVar[str] = "openai"
    version: ClassVar[int] = 1
    """Raised when the same input would give another request: it is part of the fingerprint."""
    config_class: ClassVar[type[OpenaiConfig]] = OpenaiConfig

    def __init__(self, config: OpenaiConfig, *, device: Device = CPU) -> None:
        """Ask the server about a test image, waiting for it where it is still starting.

        Raises WorkError where it refuses, stays away or is no such server, ImportError without the client, and
        ValueError for an environment variable without a key.
        """
        import openai

        from pipeline.caption.patience import PatientServer, RateLimit

        super().__init__(config, libraries={"openai": "openai"})
        self.prompt = config.prompt
        key = api_key(config.api_key_env)
        self._client = openai.OpenAI(
            base_url=config.url,
            api_key=key or _NO_KEY,
            timeout=openai.Timeout(config.request_timeout_s, connect=min(_CONNECT_S, config.request_timeout_s)),
            max_retries=0,  # they are ours
        )
        test = self._request("test", np.full((64, 64, 3), 128, dtype=np.uint8), config.prompt)
        self._server = PatientServer(
            lambda: self._choice(test, max_tokens=1),
            url=without_userinfo(config.url),
            tries=config.tries,
            patience_s=config.patience_s,
            limit=RateLimit(config.max_requests_per_minute),
            secrets=[*([key] if key else []), *passwords(config.url)],
        )
        self._server.start()

    def caption(self, crops: Sequence[Crop], prompts: Sequence[str | None]) -> list[Caption | Drop]:
        """Return the caption of each crop, or why it has none, in order. Raises WorkError where the server is gone."""
        return self.generate(self.prepare(crops, prompts))

    def prepare(self, crops: Sequence[Crop], prompts: Sequence[str | None]) -> list[_Request]:
        """Return the requests, their crops scaled and encoded."""
        return [self._request(crop.region_id, crop.pixels, prompt) for crop, prompt in zip(crops, prompts, strict=True)]

    def _request(self, region_id: str, pixels: Pixels, prompt: str | None) -> _Request:
        from PIL import Image

        image = Image.fromarray(scaled(pixels, min_side=self.config.min_side, max_side=self.config.max_side))
        encoded = io.BytesIO()
        options = {"quality": self.config.jpeg_quality, "subsampling": 0} if self.config.image_format == "jpeg" else {}
        image.save(encoded, self.config.image_format, **options)
        data = base64.b64encode(encoded.getvalue()).decode()
        return _Request(region_id, f"data:image/{self.config.image_format};base64,{data}", prompt)

    def generate(self, prepared: Sequence[_Request]) -> list[Caption | Drop]:
        """Return the answer to each request, or why it has none, in order. Raises WorkError where nobody answers."""
        pool = ThreadPoolExecutor(self.config.concurrency, thread_name_prefix="caption")
        try:
            return list(pool.map(self._outcome, prepared))
        finally:
            pool.shutdown(cancel_futures=True)

    def _outcome(self, request: _Request) -> Caption | Drop:
        choice = self._server.ask(lambda: self._choice(request, self.config.max_new_tokens), request.region_id)
        if isinstance(choice, Drop):
            return choice
        if choice.message.refusal:
            message = f"the model refuses: {self._server.without_secrets(choice.message.refusal)[:400]}"
            return Drop(reason=Reason.MODEL_ERROR, stage=Stage.CAPTION, message=message)
        logs = [token.logprob for token in (choice.logprobs and choice.logprobs.content) or ()]
        return Caption(text=choice.message.content or "", score=math.exp(sum(logs) / len(logs)) if logs else None)

    def _choice(self, request: _Request, max_tokens: int) -> "Choice":
        """Send a request and return what the model says. Raises openai's errors, as for what is no completion."""
        import openai

        config = self.config
        answer = self._client.chat.completions.with_raw_response.create(
            model=config.model,
            messages=[
                {
                    "role": "user",
                    "content": [
                        {"type": "image_url", "image_url": {"url": request.image_url}},
                        {"type": "text", "text": request.prompt or ""},
                    ],
                }
            ],
            max_tokens=max_tokens,
            temperature=config.temperature,
            seed=openai.omit if config.seed is None else config.seed,
            logprobs=config.logprobs or openai.omit,
        )
        return _first_choice(answer)

    @staticmethod
    def weights(config: OpenaiConfig) -> dict[str, Any]:
        """Return what decides no caption, without its values: the model is known by its name alone.

        Raises ImportError, at start, without the client, and ValueError for an environment variable without a key.
        """
        require("openai", what="the captioner openai", install="pip install 'fineclip-regions[openai]'")
        api_key(config.api_key_env)
        return dict.fromkeys(_NOT_OUTPUT)

    @staticmethod
    def licenses(config: OpenaiConfig) -> tuple[Licensed, ...]:
        """Return the terms of the client, and of the weights as far as a server's name for them tells."""
        return (OPENAI_CLIENT, model_license(config.model, origin="server", stated=config.license))

    def provenance(self) -> dict[str, Any]:
        """Return a captioner's provenance, with the model as it was asked for, and the promise.

        What the server calls the model is left out: it can change between two answers, so the provenance would depend
        on when it is taken.
        """
        said = super().provenance()
        said["settings"] |= dict.fromkeys(_NOT_OUTPUT)
        promise = "server: same rows, texts as the server gave"
        return said | {"weights": {"model": self.config.model}, "promise": promise}


def _first_choice(answer: "LegacyAPIResponse[ChatCompletion]") -> "Choice":
    """Return the first choice in an answer of status 200.

    Raises openai's APIResponseValidationError where it has none: gateways report the errors of those behind them so,
    filters of content leave nothing, and a body can be cut off.
    """
    import openai
    from openai.types.chat import ChatCompletionMessage

    try:
        completion = answer.parse()
    except ValueError:  # no JSON
        completion = None
    choices = getattr(completion, "choices", None)
    choice: Choice | None = choices[0] if isinstance(choices, list) and choices else None
    message = getattr(choice, "message", None)
    if choice is None or not isinstance(message, ChatCompletionMessage) or not isinstance(message.content, str | None):
        raise openai.APIResponseValidationError(
            answer.http_response,
            getattr(completion, "error", None),  # its message, where there is one, is what users are told
            message=f"something else than a chat completion: {answer.http_response.text or 'an empty body'}",
        )
    return choice
