"""Asking a server that may be slow, busy or gone for a while: back-off, rate limit, and which errors cost what.

busy (429)              all wait as long as it says, and ask again
gone                    wait until it answers a probe, and ask again: an outage costs time and no item
gone for `patience_s`   WorkError: the run stops, nothing of the shard is kept, the same command goes on from there
an attempt that fails   while the server answers others: ask again, and after `tries` of them the item is dead. An
                        answer of another form than was asked for is one: gateways report their own troubles so
refused (400, 422)      the item is dead, with the server's message
refused (401, 403, 404) WorkError, with the remedy

What is said of it all holds no secret, and errors of the client are not chained to ours: their text may hold one.
"""

import itertools
import logging
import threading
import time
from collections.abc import Callable, Sequence
from email.utils import parsedate_to_datetime
from typing import TypeVar

import openai

from pipeline.errors import WorkError
from pipeline.sample import Drop
from schemas.hashes import sha256
from schemas.reasons import Reason, Stage

_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.25, 5.0
_MOST_OUTAGES = 5
"""Times that a server may go away while it is asked about one item: it may be the item that brings it down."""
_REMEDIES = {
    401: "name the environment variable of a valid key with --caption.api_key_env",
    402: "the account has no credit",
    403: "the key may not use this model",
    404: "check --caption.url (it ends in /v1) and --caption.model (the server's /v1/models lists them)",
}
"""Statuses that hold for every request, and what to do about each."""

Answer = TypeVar("Answer")
_log = logging.getLogger(__name__)


class RateLimit:
    """Spaces requests evenly over all threads of a process."""

    def __init__(self, per_minute: int | None) -> None:
        self._interval_s = 60 / per_minute if per_minute else 0.0
        self._next = 0.0
        self._lock = threading.Lock()

    def wait(self) -> None:
        """Return when the next request may be sent."""
        with self._lock:
            now = time.monotonic()
            slot = max(self._next, now)
            self._next = slot + self._interval_s
        time.sleep(slot - now)

    def pause(self, seconds: float) -> None:
        """Let no request start before `seconds` have passed."""
        with self._lock:
            self._next = max(self._next, time.monotonic() + seconds)


class PatientServer:
    """A server that is asked until it answers, says no, or has been gone for too long. For many threads."""

    def __init__(
        self,
        probe: Callable[[], object],
        *,
        url: str,
        tries: int,
        patience_s: float,
        limit: RateLimit,
        secrets: Sequence[str] = (),
    ) -> None:
        """`probe` asks something that the server can surely answer; it raises as the openai package does.

        `url` is what messages call the server. `tries` are the times that an item is asked about again while the
        server answers others. `secrets` are what no message may hold, even where the server repeats them.
        """
        self._probe = probe
        self._url = url
        self._tries = tries
        self._patience_s = patience_s
        self._limit = limit
        self._secrets = secrets
        self._probing = threading.Lock()
        self._answered_at = self._outage_ended_at = self._gave_up_at = float("-inf")

    def start(self) -> None:
        """Wait for the server's first answer. Raises WorkError where it refuses the probe or stays away."""
        try:
            self._wait_for_answer("start", time.monotonic(), error=None)
        except openai.APIError as error:
            raise WorkError(f"{self._url} refuses a test image: {self._words(error)}") from None

    def without_secrets(self, text: str) -> str:
        """Return the text with `***` in the place of each secret."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text

    def ask(self, request: Callable[[], Answer], item: str) -> Answer | Drop:
        """Return what `request` returns, or why this item has no answer. Raises WorkError as the module's text says.

        `item` names it: the lengths of its waits are made from the name.
        """
        failures = outages = busy = 0
        busy_s = 0.0  # of the server alone: waiting for our own rate limit does not count
        while True:
            self._limit.wait()
            sent_at = time.monotonic()
            try:
                answer = request()
            except openai.RateLimitError as error:
                busy += 1
                busy_s += time.monotonic() - sent_at
                busy_s += self._pause(error, back_off_s(item, busy), busy_s)
            except openai.APIError as error:
                failed_at = time.monotonic()
                drop = Drop(reason=self._reason(error), stage=Stage.CAPTION, message=self._words(error))
                if not _may_pass(error):
                    return drop
                self._sleep(error, back_off_s(item, failures + outages + 1))
                if self._was_gone(item, failed_at, error):
                    outages += 1
                    self._check_outages(outages, item, drop)
                else:
                    failures += 1
                    if failures > self._tries:
                        return drop
                busy_s = 0.0
            else:
                self._answered_at = time.monotonic()
                return answer

    def _was_gone(self, item: str, failed_at: float, error: openai.APIError) -> bool:
        """Wait until the server answers anybody, and return whether it did not at first. Raises WorkError."""
        try:
            self._wait_for_answer(item, failed_at, error)
        except openai.APIError:
            self._answered_at = time.monotonic()  # it refuses the probe: an answer too
        return self._outage_ended_at > failed_at

    def _check_outages(self, outages: int, item: str, drop: Drop) -> None:
        if outages > _MOST_OUTAGES:
            raise WorkError(
                f"{self._url} went away {outages} times while it was asked about region {item} ({drop.message}); "
                "if that crop brings it down (--caption.concurrency 1 tells), leave the region out with --filter"
            ) from None

    def _reason(self, error: openai.APIError) -> Reason:
        """Return what the error means for one item. Raises WorkError for one that means the same for all."""
        status = error.status_code if isinstance(error, openai.APIStatusError) else None
        if status in _REMEDIES:
            raise WorkError(f"{self._url} refuses: {self._words(error)}; {_REMEDIES[status]}") from None
        timed_out = isinstance(error, openai.APITimeoutError) or status in (408, 504)
        return Reason.TIMEOUT if timed_out else Reason.MODEL_ERROR

    def _wait_for_answer(self, item: str, since: float, error: openai.APIError | None) -> None:
        """Probe, one thread for all, until the server answers. Raises its refusal of the probe, and WorkError."""
        with self._probing:
            for attempt in itertools.count(1):
                given_up = self._gave_up_at > since  # by another thread: no need to find out again
                if self._answered_at > since or (not given_up and (error := self._probed()) is None):
                    self._outage_ended_at = self._answered_at if attempt > 1 else self._outage_ended_at
                    return
                if given_up or time.monotonic() - since > self._patience_s:
                    self._gave_up_at = time.monotonic()
                    raise WorkError(
                        f"{self._url} has not answered for {self._patience_s:g} s (--caption.patience_s): "
                        f"{self._words(error)}; once it is back, the same command goes on from here"
                    ) from None
                if attempt == 1:
                    _log.warning("%s: %s; waiting up to %g s for it", self._url, self._words(error), self._patience_s)
                self._sleep(error, back_off_s(f"probe of {item}", attempt))

    def _sleep(self, error: openai.APIError | None, back_off: float) -> None:
        time.sleep(min(max(back_off, retry_after_s(error) or 0), self._patience_s))

    def _probed(self) -> openai.APIError | None:
        """Return None where the server answered the probe, else what went wrong if that may pass."""
        self._limit.wait()
        try:
            self._probe()
        except openai.RateLimitError as error:  # too busy is not gone
            self._limit.pause(min(retry_after_s(error) or _FIRST_WAIT_S, self._patience_s))
        except openai.APIError as error:
            self._reason(error)
            if not _may_pass(error) or self._never_completed(error):
                raise
            return error
        self._answered_at = time.monotonic()
        return None

    def _never_completed(self, error: openai.APIError) -> bool:
        """Return whether the server said something else from the start: it is one of another kind."""
        return isinstance(error, openai.APIResponseValidationError) and self._answered_at == float("-inf")

    def _pause(self, error: openai.RateLimitError, back_off: float, busy_s: float) -> float:
        """Let all wait as long as the server asks (`back_off` where it says nothing), and return these seconds.

        Raises WorkError where it has been busy for too long, `busy_s` until now.
        """
        asked_s = retry_after_s(error)
        wait_s = back_off if asked_s is None else asked_s
        if busy_s + wait_s > self._patience_s:
            raise WorkError(
                f"{self._url} is too busy for longer than {self._patience_s:g} s (--caption.patience_s): "
                f"{self._words(error)}; lower --caption.max_requests_per_minute or --caption.concurrency"
            ) from None
        self._limit.pause(wait_s)
        return wait_s

    def _words(self, error: openai.APIError | None) -> str:
        """Return the error in one line: the server's own words where it said any."""
        if error is None:
            return "no answer"
        status = f"{error.status_code}: " if isinstance(error, openai.APIStatusError) else ""
        body = error.body
        said = body.get("message") if isinstance(body, dict) else None
        cause = "" if said or error.__cause__ is None else f" ({error.__cause__})"
        text = self.without_secrets(f"{status}{said or error.message}{cause}")
        return " ".join(text.split())[:500]


def back_off_s(item: str, attempt: int) -> float:
    """Return the seconds to wait after the attempt (1, 2, ...): doubled each time, spread by the item's name."""
    longest: float = min(_FIRST_WAIT_S * 2 ** (attempt - 1), _LONGEST_WAIT_S)
    spread = int(sha256(f"{item} {attempt}".encode())[:8], 16) / 16**8
    return longest * (0.5 + 0.5 * spread)


def retry_after_s(error: openai.APIError | None) -> float | None:
    """Return the seconds that the server asks to wait, by its `Retry-After`; None where it says nothing."""
    if not isinstance(error, openai.APIStatusError):
        return None
    asked = error.response.headers.get("retry-after", "")
    try:
        return max(0.0, float(asked))
    except ValueError:
        pass  # then it is a date, or nothing
    try:
        return max(0.0, parsedate_to_datetime(asked).timestamp() - time.time())
    except ValueError:
        return None


def _may_pass(error: openai.APIError) -> bool:
    """Return whether the same request may be answered later."""
    if isinstance(error, openai.APIStatusError):
        return error.status_code >= 500 or error.status_code in (408, 409, 429)
    # time-outs are connection errors; an answer of another form says nothing about the next one
    return isinstance(error, openai.APIConnectionError | openai.APIResponseValidationError)
