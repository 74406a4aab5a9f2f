"""How commands end: exit codes, and the errors that end one with a message instead of a traceback."""

DONE, STOPPED, USAGE, REFUSED, INTERRUPTED = range(5)


class TrainingError(ValueError):
    """Settings or inputs cannot be trained on; the message says what to change."""

    exit_code = USAGE


class RefusedError(ValueError):
    """RUN belongs to other settings or data; the message says what differs."""

    exit_code = REFUSED


class InterruptedRunError(RuntimeError):
    """A signal came before the first step; what was done until then is kept."""

    exit_code = INTERRUPTED


class StoppedError(RuntimeError):
    """Training cannot go on (a loss that is not finite, too many unusable samples)."""

    exit_code = STOPPED
