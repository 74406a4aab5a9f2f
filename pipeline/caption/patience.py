"""Asking a server that may be slow, busy or gone for a while: back-off, rate limit, and which errors cost what.

busy (429)              all wait as long as it says, and ask again
gone                    wait until it answers a probe, and ask again: an outage costs time and no item
either for `patience_s` ServerGoneError: the run stops, nothing of the shard is kept, the same command goes on
an attempt that fails   while the server answers others: ask again, and after `tries` of them the item is dead. An
                        answer of another form than was asked for is one: gateways report their own troubles so
refused (400, 422)      the item is dead, with the server's message
refused (401, 403, 404) WorkError, with the remedy

A server that has never answered is told of within `start_s`: it may not be there at all.
"""

import itertools
import logging
import threading
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from typing import TypeVar

import openai

from pipeline.caption.client import Client
from pipeline.errors import ServerGoneError, WorkError
from pipeline.sample import Drop
from schemas.hashes import sha256
from schemas.reasons import Reason, Stage

_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.25, 5.0
_MOST_OUTAGES = 5
"""Times that a server may go away while it is asked about one item: it may be the item that brings it down."""

Answer = TypeVar("Answer")
Sleep = Callable[[float], object]
_log = logging.getLogger(__name__)


class RateLimit:
    """Spaces requests evenly over all threads of a process."""

    def __init__(self, per_minute: int | None) -> None:
        self._interval_s = 60 / per_minute if per_minute else 0.0
        self._next = 0.0
        self._lock = threading.Lock()

    def wait(self, sleep: Sleep = time.sleep) -> None:
        """Return when the next request may be sent."""
        with self._lock:
            now = time.monotonic()
            slot = max(self._next, now)
            self._next = slot + self._interval_s
        sleep(slot - now)

    def pause(self, seconds: float) -> None:
        """Let no request start before `seconds` have passed."""
        with self._lock:
            self._next = max(self._next, time.monotonic() + seconds)


class PatientServer:
    """A server that is asked until it answers, says no, or has been gone for too long. For many threads."""

    def __init__(
        self,
        client: Client,
        probe: Callable[[Client], object],
        *,
        tries: int,
        patience_s: float,
        per_minute: int | None = None,
    ) -> None:
        """`probe` asks something that the server can surely answer; it raises as the openai package does.

        `tries` are the times that an item is asked about again while the server answers others, `per_minute` the
        requests that all threads may send together.
        """
        self._client = client
        self._probe = probe
        self._tries = tries
        self._patience_s = patience_s
        self._limit = RateLimit(per_minute)
        self._probing = threading.Lock()
        self._answered_at = self._outage_ended_at = self._gave_up_at = float("-inf")

    def start(self, start_s: float, began: float, sleep: Sleep = time.sleep) -> None:
        """Return when the server answers the probe.

        Raises WorkError where it refuses it, and ServerGoneError where it does not answer within `start_s` of `began`
        (monotonic seconds), or is too busy for `patience_s`. `sleep` is called for each wait, as `ask` calls it.
        """
        has_said_hello = False
        for attempt in itertools.count(1):
            try:
                if not has_said_hello:
                    self._client.hello(max(began + start_s - time.monotonic(), 0.1))
                has_said_hello = True
                self._limit.wait(sleep)
                self._probe(self._client)
                self._answered_at = time.monotonic()
                return
            except openai.APIError as error:
                words = self._client.words(error)
                self._reason(error)
                if not _may_pass(error) or isinstance(error, openai.APIResponseValidationError):
                    raise WorkError(f"{self._client.name} refuses a test image: {words}") from None
                wait_s = max(back_off_s("start", attempt), retry_after_s(error) or 0)
                patient = isinstance(error, openai.RateLimitError) or retry_after_s(error) is not None
                flag, limit_s = ("patience-s", self._patience_s) if patient else ("start-s", start_s)
                if time.monotonic() - began + wait_s > limit_s:
                    raise ServerGoneError(
                        f"{self._client.name} gave no answer to a test image within {limit_s:g} s "
                        f"(--caption.{flag}): {words}"
                    ) from None
                sleep(wait_s)

    def ask(
        self,
        request: Callable[[Client], Answer],
        item: str,
        sleep: Sleep = time.sleep,
        *,
        patience_s: float | None = None,
    ) -> Answer | Drop:
        """Return what `request` returns, or why this item has no answer. Raises WorkError as the module's text says.

        `item` names it: the lengths of its waits are made from the name. `sleep` is called for each wait; what it
        raises ends the asking. `patience_s` goes before the server's own.
        """
        patience_s = self._patience_s if patience_s is None else patience_s
        failures = outages = busy = 0
        busy_s = 0.0  # of the server alone: waiting for our own rate limit does not count
        while True:
            self._limit.wait(sleep)
            sent_at = time.monotonic()
            try:
                answer = request(self._client)
            except openai.RateLimitError as error:
                busy += 1
                busy_s += time.monotonic() - sent_at
                asked_s = retry_after_s(error)
                wait_s = back_off_s(item, busy) if asked_s is None else asked_s
                if (busy_s := busy_s + wait_s) > patience_s:
                    raise ServerGoneError(
                        f"{self._client.name} is too busy for longer than {patience_s:g} s "
                        f"(--caption.patience-s): {self._client.words(error)}; lower "
                        "--caption.max-requests-per-minute or --caption.concurrency"
                    ) from None
                self._limit.pause(wait_s)
            except openai.APIError as error:
                failed_at = time.monotonic()
                drop = Drop(reason=self._reason(error), stage=Stage.CAPTION, message=self._client.words(error))
                if not _may_pass(error):
                    return drop
                busy_s = 0.0
                sleep(_wait_s(error, back_off_s(item, failures + outages + 1), patience_s))
                if not self._was_gone(item, failed_at, error, sleep, patience_s):
                    failures += 1
                    if failures > self._tries:
                        return drop
                elif (outages := outages + 1) > _MOST_OUTAGES:
                    raise WorkError(
                        f"{self._client.name} went away {outages} times while it was asked about region {item} "
                        f"({drop.message}); if that crop brings it down (--caption.concurrency 1 tells), leave the "
                        "region out with --filter"
                    ) from None
            else:
                self._answered_at = time.monotonic()
                return answer

    def _reason(self, error: openai.APIError) -> Reason:
        """Return what the error means for one item. Raises WorkError for one that means the same for all."""
        is_outage = isinstance(error, openai.APIConnectionError) and self._answered_at > float("-inf")
        if not is_outage and (remedy := self._client.remedy(error)):
            verb = "refuses" if isinstance(error, openai.APIStatusError) else "cannot be reached"
            raise WorkError(f"{self._client.name} {verb}: {self._client.words(error)}; {remedy}") from None
        timed_out = isinstance(error, openai.APITimeoutError) or getattr(error, "status_code", 0) in (408, 504)
        return Reason.TIMEOUT if timed_out else Reason.MODEL_ERROR

    def _was_gone(self, item: str, failed_at: float, error: openai.APIError, sleep: Sleep, patience_s: float) -> bool:
        """Wait until the server answers anybody, one thread for all; return whether it did not at first.

        Raises WorkError.
        """
        with self._probing:
            for attempt in itertools.count(1):
                given_up = self._gave_up_at > failed_at  # by another thread: no need to find out again
                if not given_up and (self._answered_at > failed_at or (answer := self._probed(sleep)) is None):
                    if attempt > 1:
                        self._outage_ended_at = self._answered_at
                    return self._outage_ended_at > failed_at
                if not given_up and answer is not None:
                    error = answer
                if given_up or time.monotonic() - failed_at > patience_s:
                    self._gave_up_at = time.monotonic()
                    raise ServerGoneError(
                        f"{self._client.name} has not answered for {patience_s:g} s (--caption.patience-s): "
                        f"{self._client.words(error)}; once it is back, the same command goes on from here"
                    ) from None
                if attempt == 1:
                    words = self._client.words(error)
                    _log.warning("%s: %s; waiting up to %g s for it", self._client.name, words, patience_s)
                sleep(_wait_s(error, back_off_s(f"probe of {item}", attempt), patience_s))
        raise AssertionError("unreachable")

    def _probed(self, sleep: Sleep) -> openai.APIError | None:
        """Return what went wrong with the probe and may pass; None where the server answered, if only by a refusal.

        Raises WorkError for what every request will meet.
        """
        self._limit.wait(sleep)
        try:
            self._probe(self._client)
        except openai.RateLimitError as error:  # too busy is not gone
            self._limit.pause(min(retry_after_s(error) or _FIRST_WAIT_S, self._patience_s))
        except openai.APIError as error:
            self._reason(error)
            if _may_pass(error):
                return error
        self._answered_at = time.monotonic()
        return None


def _wait_s(error: openai.APIError, back_off: float, most: float) -> float:
    return min(max(back_off, retry_after_s(error) or 0), most)


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
