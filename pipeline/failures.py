"""Failures of single items: values that travel to the dead-letter rows, instead of exceptions that stop a shard."""

import traceback
from dataclasses import dataclass

from schemas.hashes import sha256
from schemas.reasons import Reason, Stage


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why one image or region did not make it (a filtered one has a `Failure` too: `reason` tells them apart)."""

    reason: Reason
    stage: Stage
    message: str
    traceback_hash: str | None = None
    """16 hex digits of the error's type and the code lines it passed: equal for failures of the same origin."""


def failure_of(error: BaseException, reason: Reason, stage: Stage) -> Failure:
    """Return the failure that stands for `error`: its first line as message, its origin as traceback hash."""
    frames = [f"{frame.name}:{frame.line}" for frame in traceback.extract_tb(error.__traceback__)]
    origin = "\n".join([type(error).__name__, *frames])
    text = str(error).strip().split("\n")[0][:500]
    message = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return Failure(reason=reason, stage=stage, message=message, traceback_hash=sha256(origin.encode())[:16])
