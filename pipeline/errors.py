"""Exit codes, and the errors of running a job, apart from the engine module: raising one must not import Beam."""

from schemas.paths import printable
from schemas.store_errors import StorageError

EXIT_CODES = """\
exit codes:
  0  done and balanced
  1  more dead than --max-dead
  2  wrong usage or unusable input
  3  refused: OUTPUT belongs to another configuration or other inputs
  4  interrupted and drained; the same command goes on from there
  5  OUTPUT cannot be read or written, or an INPUT's store fails
  6  totals do not balance
  7  the engine or a model's server failed; the same command goes on from there"""
"""What the help of commands ends with that run a job."""
STATUS_EXIT_CODES = """\
exit codes:
  0  OUTPUT can be read, and nothing of it is damaged (it may be unfinished)
  2  wrong usage, or no data set is there
  5  OUTPUT cannot be read, or files of it are damaged
  6  totals do not balance: a bug of ours"""
OUT_EXIT_CODES = """\
exit codes:
  0  done
  2  wrong usage, or DATA is damaged
  3  refused: OUT holds something else
  4  interrupted; the same command goes on from there
  5  DATA cannot be read or OUT cannot be written"""
"""What the help of commands ends with that write OUT from DATA."""

OVERLAY_EXIT_CODES = """\
exit codes:
  0  done
  2  wrong usage, DATA is damaged, or a model cannot be loaded
  3  refused: NAME is an overlay made by another model or with other settings
  4  interrupted; the same command goes on from there
  5  DATA cannot be read, or its overlay cannot be written"""
"""What the help of commands ends with that write an overlay."""


class EngineError(ValueError):
    """The Beam options ask for something that this job must not run on. Commands exit 2 on it."""

    exit_code = 2


class WorkError(RuntimeError):
    """The models cannot be loaded, or fail on everything they are given. Commands exit 2 on it."""

    exit_code = 2


class BrokenModelError(WorkError):
    """A model fails on what a unit gives it: it is broken, or the unit's items are. Commands exit 2 on it."""


class ServerGoneError(WorkError):
    """A model's server cannot be reached, or does not answer any more; the same command goes on. Commands exit 7."""

    exit_code = 7


class ConstantCaptionsError(WorkError):
    """A captioner says the same of pictures that differ: its model sees none. Commands exit 7 on it."""

    exit_code = 7


class UnseenOutputError(RuntimeError):
    """A worker does not find the driver's OUTPUT where it looks for it. Engines hand its sentence to the driver."""


class InterruptedRunError(RuntimeError):
    """The engine ended before its work was done; the same command goes on from there. Commands exit 7 on it."""

    exit_code = 7


class SourceError(ValueError):
    """An INPUT cannot be used; the message names it and says what to do. Commands exit 2 on it."""

    exit_code = 2

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


class InputError(SourceError, StorageError):
    """The store of an INPUT fails: where that may pass, workers try again before they give up. Commands exit 5."""

    exit_code = 5

    def __init__(self, message: str, *, may_pass: bool = True) -> None:
        super().__init__(message)
        self.may_pass = may_pass


class PlanError(ValueError):
    """OUTPUT belongs to another configuration or other inputs; the message shows the difference. Commands exit 3."""

    exit_code = 3

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))
