"""How commands end: exit codes, and the errors that end one with a message instead of a traceback."""

DONE, STOPPED, USAGE, REFUSED, INTERRUPTED = range(5)


class TrainingError(ValueError):
    """Settings or inputs cannot be trained on; the message says what to change. Commands exit 2 on it."""


class RefusedError(ValueError):
    """RUN belongs to other settings or data; the message says what differs. Commands exit 3 on it."""


class StoppedError(RuntimeError):
    """Training cannot go on (a loss that is not finite, too many unusable samples). Commands exit 1 on it."""
