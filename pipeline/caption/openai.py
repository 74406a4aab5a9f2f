"""Models behind any server that speaks OpenAI's chat completions: vLLM, LMDeploy, SGLang, a hosted service.

This is also how InternLM-XComposer, the paper's other captioner, is reached: its own code needs an old transformers, so
it runs in LMDeploy's environment, apart from this one:

    pip install lmdeploy && lmdeploy serve api_server internlm/internlm-xcomposer2-vl-7b --server-port 23333
    fineclip annotate INPUT OUTPUT --captioner openai

or, for another model, `vllm serve Qwen/Qwen2-VL-7B-Instruct` with `--caption.url http://127.0.0.1:8000/v1` and
`--caption.model Qwen/Qwen2-VL-7B-Instruct`; or by `--caption.serve`, one server a worker (`managed.py`).
"""

import base64
import io
import re
import threading
import time
from collections.abc import Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal
from urllib.parse import urlsplit

import numpy as np

from pipeline.backends import check_ranges, require
from pipeline.caption.base import CaptionerBase, Watched
from pipeline.caption.completion import cut_of, first_choice, refusal_of, score_of, text_of
from pipeline.caption.managed import words_of
from pipeline.caption.pixels import scaled
from pipeline.caption.secrets import api_key, without_userinfo
from pipeline.caption.whose import Ours, Theirs
from pipeline.models.device import CPU, Device
from pipeline.models.licenses import OPENAI_CLIENT, Licensed, model_license
from pipeline.sample import Caption, Crop, Drop, Pixels
from schemas.reasons import Reason, Stage

if TYPE_CHECKING:
    from openai._legacy_response import LegacyAPIResponse
    from openai.types.chat import ChatCompletion
    from openai.types.chat.chat_completion import Choice

    from pipeline.caption.client import Client

_URL = "http://127.0.0.1:23333/v1"
_NOT_OUTPUT = (
    "url",
    "serve",
    "api_key_env",
    "concurrency",
    "max_requests_per_minute",
    "request_timeout_s",
    "start_s",
    "patience_s",
    "tries",
    "allow_constant",
    "license",
    "batch_size",
)
"""Settings that decide no caption: the data set is the same whichever server gave the model's answers."""


@dataclass(frozen=True, kw_only=True)
class OpenaiConfig(Watched):
    """Settings of `openai`."""

    url: str | None = None
    """The server's base URL, which ends in /v1; http://127.0.0.1:23333/v1 when not given. Several servers of the model
    share the work: give the flag for each, or commas between them."""
    serve: str | None = None
    """A command that starts the server, with {port} where it takes its port. Each worker starts one, on its own GPU,
    and ends it; no shell reads the command."""
    model: str = "internlm/internlm-xcomposer2-vl-7b"
    """The model's name on the server."""
    api_key_env: str | None = None
    """Name of the environment variable that holds the key, not the key; none is sent when not given."""
    prompt: str = "Describe this image in one sentence."
    """What the model is asked about each crop; the paper's words."""
    max_new_tokens: int = 64
    """Longest answer, in tokens, thoughts included."""
    unfinished: Literal["dead", "keep"] = "dead"
    """What becomes of an answer that the server cut, at --caption.max-new-tokens or by a filter: dead or keep. Chat
    models write whole sentences, so a cut answer breaks off within one."""
    temperature: float | None = 0.0
    """Of the sampling; 0 takes the likeliest token. null for models that let nobody choose it."""
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
    concurrency: int = 256
    """Requests under way at once, by each worker: as many as let the server fill its batches."""
    max_requests_per_minute: int | None = None
    """Rate limit of each worker."""
    request_timeout_s: float = 60.0
    """Seconds of silence after which a request is given up and sent again."""
    tries: int = 3
    """Times that a crop is sent again while the server answers others; then it is dead."""
    start_s: float | None = None
    """Seconds in which a server must first answer; 10 when not given, and 1800 for one of --caption.serve."""
    patience_s: float = 300.0
    """Seconds that a server which has answered is waited for when it is gone or too busy; then the run stops, to be
    resumed."""
    license: str | None = None
    """Licence of the weights, where you know it and the ledger does not; it goes into the provenance."""
    batch_size: int = 256
    """Crops that are cut while those before them are under way."""

    def __post_init__(self) -> None:
        least = {
            "max_new_tokens": 1,
            "jpeg_quality": 1,
            "concurrency": 1,
            "tries": 0,
            "patience_s": 0,
            "batch_size": 1,
        }
        check_ranges(self, flag="--caption", least=least)
        if self.temperature is not None and self.temperature < 0:
            raise ValueError(f"--caption.temperature is {self.temperature}, but must be at least 0")
        for name in ("max_requests_per_minute", "request_timeout_s"):
            if (getattr(self, name) or 1) < 0 or getattr(self, name) == 0:
                raise ValueError(f"--caption.{name.replace('_', '-')} is {getattr(self, name)}, but must be above 0")
        if not 1 <= self.min_side <= self.max_side:
            raise ValueError(
                f"--caption.min-side is {self.min_side} and --caption.max-side {self.max_side}: "
                "the first must be at least 1 and not above the second"
            )
        if self.start_s is not None and self.start_s < 0:
            raise ValueError(f"--caption.start-s is {self.start_s}, but must be at least 0")
        self._check_serve()
        self._check_urls()
        if self.api_key_env is not None and not self.api_key_env.isidentifier():
            raise ValueError("--caption.api-key-env takes the name of an environment variable, not the key itself")

    def _check_urls(self) -> None:
        for url in self.urls:
            if not url.startswith(("http://", "https://")):
                raise ValueError(f"--caption.url {without_userinfo(url)!r}: must start with http:// or https://")
            if "?" in url or "#" in url:
                shown = re.sub("=[^&]*", "=***", without_userinfo(url))
                raise ValueError(f"--caption.url {shown!r}: must end in the path, such as /v1, without a query")
            if not _has_address(url):
                raise ValueError(f"--caption.url {without_userinfo(url)!r}: it has no host, or a port that is none")

    def _check_serve(self) -> None:
        if self.serve is None:
            return
        if self.url is not None:
            raise ValueError("--caption.url and --caption.serve: give one, a server that is there or one to start")
        try:
            words_of(self.serve)
        except ValueError as error:
            raise ValueError(f"--caption.serve {self.serve!r}: {error}") from None

    @property
    def urls(self) -> list[str]:
        """The base URLs of the servers that are there already."""
        return [] if self.serve is not None else [url.strip().rstrip("/") for url in (self.url or _URL).split(",")]


class Openai(CaptionerBase):
    """Asks a server about each crop. `caption_score` is the mean probability (geometric, 0 to 1) of the tokens.

    Requests slide in a window: `prepare` sends them, as many at once as `concurrency` allows, and `generate` waits for
    their answers in order. So a batch is under way before the one in front of it has all its answers.
    """

    name: ClassVar[str] = "openai"
    version: ClassVar[int] = 1
    """Raised when the same input would give another request: it is part of the fingerprint."""
    config_class: ClassVar[type[OpenaiConfig]] = OpenaiConfig
    not_output: ClassVar[tuple[str, ...]] = _NOT_OUTPUT
    runs_elsewhere: ClassVar[bool] = True
    """The CPU is free for preparing, whatever the machine."""

    def __init__(self, config: OpenaiConfig, *, device: Device = CPU) -> None:
        """Ask the server about a test image.

        Raises WorkError where it refuses, stays away or is no such server, ImportError without the client, and
        ValueError for an environment variable without a key.
        """
        from pipeline.caption.client import Client
        from pipeline.caption.fleet import Fleet

        super().__init__(config, libraries={"openai": "openai"})
        self.prompt = config.prompt
        key = api_key(config.api_key_env)
        timeout_s, width = config.request_timeout_s, config.concurrency
        began = time.monotonic()
        self._whose = Theirs(config.urls) if config.serve is None else Ours(config.serve, device=device)
        start_s = self._whose.start_s if config.start_s is None else config.start_s
        self._whose.wait_until_there(start_s)
        clients = [Client(url, key=key, timeout_s=timeout_s, concurrency=width) for url in self._whose.urls]
        self._limit_name: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
        self._pool = ThreadPoolExecutor(width, thread_name_prefix="caption")
        self._abandoned = threading.Event()
        test = self._data_url(np.full((64, 64, 3), 128, dtype=np.uint8))
        self._servers = Fleet(
            clients,
            lambda client: self._choice(client, test, config.prompt),
            tries=config.tries,
            patience_s=self._whose.patience_s(config.patience_s, start_s),
            per_minute=config.max_requests_per_minute,
        )
        self._servers.start(start_s, began=began)
        self._whose.started()

    def caption(self, crops: Sequence[Crop], prompts: Sequence[str | None]) -> list[Caption | Drop]:
        """Return the caption of each crop, or why it has none, in order. Raises WorkError where the server is gone."""
        return self.generate(self.prepare(crops, prompts))

    def prepare(self, crops: Sequence[Crop], prompts: Sequence[str | None]) -> "list[Future[Caption | Drop]]":
        """Return the answers to come: the requests wait for their turn, or are under way."""
        asked = zip(crops, prompts, strict=True)
        return [self._pool.submit(self._outcome, crop, prompt, self._abandoned) for crop, prompt in asked]

    def generate(self, prepared: "Sequence[Future[Caption | Drop]]") -> list[Caption | Drop]:
        """Return the answer to each request, or why it has none, in order. Raises WorkError where nobody answers.

        Requests that are under way then are given up, those of other batches too.
        """
        try:
            return [answer.result() for answer in prepared]
        except BaseException:
            self._abandoned.set()
            self._abandoned = threading.Event()
            raise

    def _outcome(self, crop: Crop, prompt: str | None, abandoned: threading.Event) -> Caption | Drop:
        """Ask about a crop; the thread ends where nobody waits for the answer any more."""

        def sleep(seconds: float) -> None:
            if abandoned.wait(max(seconds, 0)):
                raise CancelledError

        sleep(0)
        image_url = self._data_url(crop.pixels)
        answer = self._servers.ask(
            lambda client: (client, self._choice(client, image_url, prompt)), crop.region_id, sleep
        )
        if isinstance(answer, Drop):
            return answer
        client, choice = answer
        message, text = choice.message, text_of(choice.message)
        if refusal := refusal_of(message):
            return _drop(f"the model refuses: {client.without_secrets(refusal)[:400]}")
        if client.without_secrets(text) != text:
            return _drop("the answer repeats the key or password that the server is asked with")
        return Caption(text=text, score=score_of(choice), unfinished=cut_of(choice))

    def _data_url(self, pixels: Pixels) -> str:
        """Return a crop as it is sent."""
        config = self.config
        fitting = scaled(pixels, min_side=config.min_side, max_side=config.max_side)
        return data_url(fitting, config.image_format, quality=config.jpeg_quality)

    def _choice(self, client: "Client", image_url: str, prompt: str | None) -> "Choice":
        """Send a request and return what the model says. Raises openai's errors, as for what is no completion.

        Newer models take the limit of tokens by another name only: what a server wants is found out once.
        """
        import openai

        self._whose.check()
        try:
            return self._sent(client, image_url, prompt, self._limit_name)
        except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
            is_about_it = re.search("max_(completion_)?tokens", str(error.body))
            if self._limit_name == "max_completion_tokens" or not is_about_it:
                raise
            try:
                choice = self._sent(client, image_url, prompt, "max_completion_tokens")
            except openai.APIStatusError:
                raise error from None
            self._limit_name = "max_completion_tokens"
            return choice

    def _sent(self, client: "Client", image_url: str, prompt: str | None, limit: str) -> "Choice":
        import openai

        config = self.config
        image = {"type": "image_url", "image_url": {"url": image_url}}
        message: Any = {"role": "user", "content": [image, {"type": "text", "text": prompt or ""}]}
        answer: LegacyAPIResponse[ChatCompletion] = client.api.chat.completions.with_raw_response.create(
            model=config.model,
            messages=[message],
            temperature=openai.omit if config.temperature is None else config.temperature,
            seed=openai.omit if config.seed is None else config.seed,
            logprobs=config.logprobs or openai.omit,
            extra_body={limit: config.max_new_tokens},
        )
        self._whose.answered()
        return first_choice(answer)

    def new_restarts(self) -> int:
        """Return how many times the managed server was started again since this was last asked."""
        return self._whose.new_restarts()

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
        promise = "server: same rows, texts as the server gave"
        said |= {"weights": {"model": self.config.model}, "promise": promise}
        return said | self._whose.provenance()


def _has_address(url: str) -> bool:
    """Return whether a URL names a host, and a port that can be one where it names any."""
    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def data_url(pixels: Pixels, image_format: Literal["jpeg", "png"], *, quality: int) -> str:
    """Return a picture as a URL that holds it; JPEG at `quality`, with all of its colours."""
    from PIL import Image

    encoded = io.BytesIO()
    options = {"quality": quality, "subsampling": 0} if image_format == "jpeg" else {}
    Image.fromarray(pixels).save(encoded, image_format, **options)
    return f"data:image/{image_format};base64,{base64.b64encode(encoded.getvalue()).decode()}"


def _drop(message: str) -> Drop:
    return Drop(reason=Reason.MODEL_ERROR, stage=Stage.CAPTION, message=message)
