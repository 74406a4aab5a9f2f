"""What one worker process does with a unit: lease it, load the models once, retry what passes, report the rest."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from pipeline.annotate import Annotator
from pipeline.caption import captioner_class
from pipeline.caption.base import Captioner
from pipeline.caption.judge import check_sees
from pipeline.errors import BrokenModelError, InputError, SourceError, UnseenOutputError, WorkError
from pipeline.golden.answers import KeptAnswers, check_models
from pipeline.models.batches import Health
from pipeline.models.device import Device, enter_thread
from pipeline.plan.plan import Plan
from pipeline.propose import proposer_class
from pipeline.propose.base import Proposer
from pipeline.run.lease import Hold, hold, unit_name
from pipeline.run.log import Ending, RunLog
from pipeline.settings import CaptionConfiguration, Configuration, RunSettings
from pipeline.store.commit import roll_forward
from pipeline.store.scratch import sweep_scratch
from pipeline.store.storage import retried, storage_errors
from pipeline.write import proposals_file
from pipeline.write.shards import BalanceError, UnitReport, shards_of
from schemas.hashes import canonical_json
from schemas.names import RUN_DIR
from schemas.reasons import Stage

BOTH = (Stage.PROPOSE, Stage.CAPTION)
"""The stages whose models `annotate` needs."""
_BROKEN_UNITS = 2
"""In a row on which a model failed, from which on it is taken for the model."""


@dataclass(frozen=True, kw_only=True)
class WorkerSettings:
    """What a worker is built from, wherever it runs."""

    plan: Plan
    configuration: Configuration
    run: RunSettings
    run_id: str
    """Names this run in `_run/`."""

    @property
    def stages(self) -> tuple[str, ...]:
        """The methods of a worker that each unit goes through, every unit through the first before the next."""
        return ("propose", "caption") if self.run.two_pools else ("annotate",)

    def worker(self) -> "Worker":
        """Return a new worker for the process that it is called in."""
        return Worker(self)

    def lease_name(self, unit: int) -> str:
        """Return the name of a unit's lease."""
        return unit_name(unit)

    def markers_of(self, unit: int) -> tuple[str, ...]:
        """Return the names of the files that exist once the unit is done."""
        return tuple(shard.marker for shard in shards_of(unit, self.configuration).values())


_LONGEST_REASON = 500
"""Characters of a library's error: some list all models that there are."""
_Ended = tuple[Ending, str, UnitReport | None]
"""How a unit was left, with what message, and what it came to."""


class Worker:
    """Works on units, one at a time, whatever threads the engine has: models are not made to be called by several.

    The models load with the first unit that is not done yet. Making one raises UnseenOutputError where this process
    does not see the driver's OUTPUT: what it wrote would be lost without a word.
    """

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings
        self._storage = settings.plan.storage
        self._check_output()
        self._log = RunLog(self._storage, settings.run_id)
        self._annotators: dict[tuple[Stage, ...], Annotator] = {}
        self._working = threading.Lock()
        self._num_broken = 0
        self._drain_look_at = 0.0
        with contextlib.suppress(OSError):  # what killed attempts left on this machine; a job can do without
            sweep_scratch(self._storage.scratch)

    def _check_output(self) -> None:
        token = token_file(self._settings.run_id)
        try:
            retried(lambda: self._storage.read(token))
        except OSError as error:
            raise UnseenOutputError(
                f"host {socket.gethostname()} does not see the driver's OUTPUT: it cannot read "
                f"{self._storage.url}/{token} ({type(error).__name__}). Every worker needs OUTPUT under the same path "
                "(a shared file system, a volume in its container) or URL, and the rights to read and write it"
            ) from error

    def annotate(self, unit: int) -> Ending:
        """Annotate and commit a unit."""
        return self._attempt(unit, "annotate", lambda held: self._load(*BOTH).annotate(unit, held.advance))

    def propose(self, unit: int) -> Ending:
        """Leave the unit's proposals for `caption`, unless they wait already."""
        return self._attempt(unit, "propose", lambda _: self._propose(unit))

    def caption(self, unit: int) -> Ending:
        """Caption and commit a unit whose proposals wait."""
        return self._attempt(unit, "caption", lambda held: self._caption(unit, held))

    def _propose(self, unit: int) -> UnitReport | None:
        return None if proposals_file.exists(self._storage, unit) else self._load(Stage.PROPOSE).propose(unit)

    def _caption(self, unit: int, held: Hold) -> UnitReport | None:
        if not proposals_file.exists(self._storage, unit):
            return None  # its proposals are another worker's business: it is looked at again at the end
        report = self._load(Stage.CAPTION).caption(unit, held.advance)
        proposals_file.remove(self._storage, unit)
        return report

    def _load(self, *stages: Stage) -> Annotator:
        """Return what annotates, with the models of these stages. Raises WorkError where they cannot be loaded."""
        if stages not in self._annotators:
            settings = self._settings
            self._annotators[stages] = load_annotator(
                settings.plan, settings.configuration, settings.run, stages=stages
            )
        return self._annotators[stages]

    def _attempt(self, unit: int, stage: str, work: Callable[[Hold], UnitReport | None]) -> Ending:
        """Do the work of a stage under the unit's lease, one unit at a time, and log how it ended."""
        with self._working:
            enter_thread()
            ending, message, report = self._try(unit, work)
            if message or report is not None:
                retried(lambda: self._log.write(unit, ending, stage=stage, message=message, report=report))
        return ending

    def _try(self, unit: int, work: Callable[[Hold], UnitReport | None]) -> "_Ended":
        """Do the work; errors of storage are retried, all are reported: engines do not keep an error's type."""
        try:
            with storage_errors(self._storage.url):
                return retried(lambda: self._under_lease(unit, work))
        except InputError as error:
            return Ending.STORAGE, str(error), None
        except SourceError as error:
            return Ending.INPUT, str(error), None
        except OSError as error:
            return Ending.STORAGE, str(error), None
        except BalanceError as error:
            return Ending.UNBALANCED, str(error), None
        except WorkError as error:
            self._drain_unless_it_is_the_unit(error)
            ending = Ending.FAILED if error.exit_code == WorkError.exit_code else Ending.SERVER
            return ending, str(error), None

    def _drain_unless_it_is_the_unit(self, error: WorkError) -> None:
        """Ask the run's workers to take no further unit, where these would end in the same way.

        A model that fails on a unit's items may do better on the next: two such units in a row make it the model.
        """
        self._num_broken = self._num_broken + 1 if isinstance(error, BrokenModelError) else _BROKEN_UNITS
        if self._num_broken >= _BROKEN_UNITS:
            self._drain_look_at = 0.0
            with contextlib.suppress(OSError):  # the error itself is what matters
                self._storage.replace(drain_file(self._settings.run_id), b"")

    def _under_lease(self, unit: int, work: Callable[[Hold], UnitReport | None]) -> "_Ended":
        if self._is_drained():
            return Ending.DRAINED, "", None
        with hold(
            self._storage,
            self._settings.lease_name(unit),
            self._settings.run.lease_timeout_s,
            run=self._settings.run_id,
        ) as held:
            if not held:
                return Ending.LEASED, "", None
            if self._is_done(unit):  # asked under the lease: its last holder may have just finished
                return Ending.THERE, "", None
            report = work(held)
        self._num_broken = 0
        return Ending.DONE, "", report

    def _is_drained(self) -> bool:
        """Look for the request to end; on a store not more often than all looks are: a unit more may be begun."""
        if not self._storage.is_local and time.monotonic() < self._drain_look_at:
            return False
        try:
            self._storage.read(drain_file(self._settings.run_id))  # one request; `size` may take two where none is
        except FileNotFoundError:
            self._drain_look_at = time.monotonic() + self._storage.poll_s
            return False
        return True

    def _is_done(self, unit: int) -> bool:
        return all(
            roll_forward(self._storage, str(shard)) for shard in shards_of(unit, self._settings.configuration).values()
        )


def load_annotator(
    plan: Plan, configuration: Configuration, run: RunSettings, *, stages: Collection[Stage] = BOTH
) -> Annotator:
    """Return the annotator of a plan, the models of `stages` loaded and checked against the golden set.

    Raises WorkError where they cannot be loaded, whatever the cause, and GoldenAnswersError where they answer
    differently than before.
    """
    return Annotator(
        plan=plan,
        configuration=configuration,
        run=run,
        **load_models(plan, configuration, run, stages=stages)._asdict(),
    )


class Models(NamedTuple):
    """What a worker has loaded, and what it saw of them."""

    proposer: Proposer | None
    captioner: Captioner | None
    golden_answers: dict[str, str]
    """Digests of what the models said of the golden set, by kind; of those that were asked."""
    health: dict[Stage, Health]


def load_models(
    plan: Plan, configuration: CaptionConfiguration, run: RunSettings, *, stages: Collection[Stage]
) -> Models:
    """Return the models of `stages`, checked against the golden set; raises as `load_annotator` does."""
    device = Device(name=run.device, torch_threads=run.torch_threads)
    planned = plan.generations[0].configuration
    proposer = captioner = None
    if Stage.PROPOSE in stages:
        assert isinstance(configuration, Configuration), "there is a proposer"
        with _loading("proposer", configuration.proposer, configuration.propose, "--propose.model"):
            _check_weights(configuration, planned, Stage.PROPOSE)
            proposer = proposer_class(configuration.proposer)(configuration.propose, device=device)
    if Stage.CAPTION in stages:
        with _loading("captioner", configuration.captioner, configuration.caption, "--caption.model"):
            _check_weights(configuration, planned, Stage.CAPTION)
            captioner = captioner_class(configuration.captioner)(configuration.caption, device=device)
    golden_answers = check_models(
        KeptAnswers.of(plan.storage),
        proposer,
        captioner,
        configuration=planned,
        device=device,
        allow_new=run.allow_new_answers,
    )
    if captioner is not None:
        check_sees(captioner)
    kinds = {Stage.PROPOSE: "proposer", Stage.CAPTION: "captioner"}
    health = {stage: Health(has_answered=kind in golden_answers) for stage, kind in kinds.items()}
    return Models(proposer, captioner, golden_answers, health)


@contextlib.contextmanager
def _loading(kind: str, name: str, settings: Any, flag: str) -> Iterator[None]:
    """Raise WorkError, in a line that names the model, for whatever is raised while it is loaded."""
    try:
        yield
    except WorkError:
        raise
    except Exception as error:  # libraries raise anything, OSError for a file that is odd too
        model = getattr(settings, "model", None)
        of = f" ({flag} {model})" if model else ""
        why = " ".join(str(error).split())[:_LONGEST_REASON]
        raise WorkError(f"the models cannot be loaded: the {kind} {name}{of}: {type(error).__name__}: {why}") from error


def _check_weights(configuration: CaptionConfiguration, planned: Mapping[str, Any], stage: Stage) -> None:
    """Raise WorkError unless the model of a stage is, with its settings and weights, the one that was planned."""
    kind: Literal["proposer", "captioner"] = "proposer" if stage is Stage.PROPOSE else "captioner"
    found = configuration.identity(kind)
    if found.get("package") != planned[kind].get("package"):
        here, there = (" ".join(one.get("package", {}).values()) or "ours" for one in (found, planned[kind]))
        raise WorkError(
            f"the {kind} {found['name']} is of another package here ({here}) than the job was planned with ({there}): "
            "install the same one on every machine"
        )
    if canonical_json(found) != canonical_json(planned[kind]):
        raise WorkError(
            f"the {kind}'s weights found here are not those that the job was planned with: give a revision that is a "
            "commit, and the same files to every machine"
        )


def drain_file(run_id: str) -> str:
    """Return the name of the file whose existence asks the workers of a run to take no further unit."""
    return f"{RUN_DIR}/{run_id}.drain"


def token_file(run_id: str) -> str:
    """Return the name of the file by which workers of a run prove that they see the driver's OUTPUT."""
    return f"{RUN_DIR}/{run_id}.token"
