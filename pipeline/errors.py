"""Errors of running a job, apart from the engine module: raising or catching one must not import Beam."""


class EngineError(ValueError):
    """The Beam options ask for something that this job must not run on. Commands exit 2 on it."""


class WorkError(RuntimeError):
    """The models cannot be loaded, or fail on everything they are given. Commands exit 2 on it."""


class BrokenModelError(WorkError):
    """A model fails on what a unit gives it: it is broken, or the unit's items are. Commands exit 2 on it."""


class InterruptedRunError(RuntimeError):
    """The engine ended before its work was done; the same command goes on from there. Commands exit 4 on it."""
