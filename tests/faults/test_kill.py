"""Killed with SIGKILL at any moment, a job goes on where it stood, and ends with the files of an undisturbed one."""

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.builders import digests
from tests.faults import jobs
from tests.faults.fault_points import Fault

_SHARD = "train-000001"
_ATTEMPT = rf"_attempts/{_SHARD}"
_TOKEN = "[0-9a-f]{16}"
_WRITER = "[0-9a-z-]+"
"""What ends the name of a file in work."""


def _before(operation: str, target: str, nth: int = 1) -> Fault:
    return Fault(operation=operation, target=target, when="before", nth=nth)


def _after(operation: str, target: str, nth: int = 1) -> Fault:
    return Fault(operation=operation, target=target, when="after", nth=nth)


POINTS = {
    "plan: table half written": _before("write", rf"_plan\.units\.parquet\.{_WRITER}", nth=2),
    "plan: first table settled": _after("settle", rf"_attempts/_plan\.files\.parquet\.{_TOKEN}"),
    "plan: before decision": _before("create", r"_commit/plan\.json"),
    "plan: after decision": _after("create", r"_commit/plan\.json"),
    "plan: before first table is published": _before("publish", r"_plan/files\.parquet"),
    "plan: before plan.json is published": _before("decide", r"_plan/plan\.json"),
    "lease taken": _after("decide", r"_leases/unit-000001\.json"),
    "tar opened": _after("open", rf"{_SHARD}\.tar\.{_WRITER}"),
    "tar half written": _before("write", rf"{_SHARD}\.tar\.{_WRITER}", nth=50),
    "tar finished": _after("finish", rf"{_SHARD}\.tar\.{_WRITER}"),
    "before tar is settled": _before("settle", rf"{_ATTEMPT}\.tar\.{_TOKEN}"),
    "after tar is settled": _after("settle", rf"{_ATTEMPT}\.tar\.{_TOKEN}"),
    "after parquet is settled": _after("settle", rf"{_ATTEMPT}\.parquet\.{_TOKEN}"),
    "after attempts are synced": _after("sync", "_attempts", nth=2),
    "before decision": _before("create", rf"_commit/{_SHARD}\.json"),
    "decision linked": _after("link", rf".*/_commit/{_SHARD}\.json"),
    "after decision": _after("create", rf"_commit/{_SHARD}\.json"),
    "before tar is published": _before("publish", rf"{_SHARD}\.tar"),
    "after tar is published": _after("publish", rf"{_SHARD}\.tar"),
    "after parquet is published": _after("publish", rf"{_SHARD}\.parquet"),
    "before marker is published": _before("decide", rf"{_SHARD}\.json"),
    "after marker is published": _after("decide", rf"{_SHARD}\.json"),
    "before lease is given back": _before("remove", r"_leases/unit-000001\.json"),
    "before log": _before("replace", r"_run/.*\.unit-000001\..*\.jsonl"),
    "before sizes.json": _before("replace", r"sizes\.json"),
    "after sizes.json": _after("replace", r"sizes\.json"),
    "before dataset.json": _before("replace", r"dataset\.json"),
    "after dataset.json": _after("replace", r"dataset\.json"),
    "before attempts are removed": _before("remove_folder", "_attempts"),
    "after attempts are removed": _after("remove_folder", "_attempts"),
}
SEEDS = range(30)
"""Of times: even ones from the start of the job, odd ones from its first lease, while shards are written."""

AT_ONCE = 2 * (os.cpu_count() or 1)
"""Jobs that run at a time: they wait for the disk half of the time."""

Outcome = tuple[int, dict[str, str]]
"""The exit code of the killed job, and the files after it was resumed."""


def kill_at_point(source: Path, output: Path, name: str) -> Outcome:
    killed = jobs.run(source, output, fault=POINTS[name])
    return killed.code, _resume(source, output)


def _resume(source: Path, output: Path) -> dict[str, str]:
    resumed = jobs.run(source, output)
    assert resumed.code == 0, resumed.text  # which also says that the totals balance
    return digests(output)


def kill_at_time(source: Path, output: Path, seed: int, durations: dict[str, float]) -> Outcome:
    phase = _phase(seed)
    share = (seed + random.Random(seed).random()) / len(SEEDS)
    process = jobs.start(source, output)
    if phase == "writing":
        jobs.wait_until(lambda: _leased(output) or process.poll() is not None)
    time.sleep(share * durations[phase])
    process.send_signal(signal.SIGKILL)
    code = jobs.finish(process).code
    return code, _resume(source, output)


def _phase(seed: int) -> str:
    return "writing" if seed % 2 else "whole"


def _leased(output: Path) -> bool:
    return (output / "_leases").exists()


def _time(source: Path, output: Path) -> dict[str, float]:
    started = time.monotonic()
    process = jobs.start(source, output)
    jobs.wait_until(lambda: _leased(output), process)
    leased = time.monotonic()
    assert jobs.finish(process).code == 0
    ended = time.monotonic()
    return {"whole": ended - started, "writing": ended - leased}


@pytest.fixture(scope="module")
def durations(source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    """How long the quickest of some undisturbed jobs takes, in seconds: as a whole, and from its first lease on."""
    outputs = [tmp_path_factory.mktemp("timed") / "out" for _ in range(AT_ONCE)]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        timed = list(pool.map(lambda output: _time(source, output), outputs))
    return {phase: min(one[phase] for one in timed) for phase in ("whole", "writing")}


@pytest.fixture(scope="module")
def outcome_of(
    request: pytest.FixtureRequest, source: Path, durations: dict[str, float], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[Any], Outcome]]:
    """The outcome of the kill with a name or seed. All that are asked for are begun at once, `AT_ONCE` at a time."""
    outcomes: dict[Any, Future[Outcome]] = {}
    with ThreadPoolExecutor(AT_ONCE) as pool:

        def begin(moment: Any) -> Future[Outcome]:
            if moment not in outcomes:
                output = tmp_path_factory.mktemp("killed") / "out"
                at_point = isinstance(moment, str)
                kill, more = (kill_at_point, ()) if at_point else (kill_at_time, (durations,))
                outcomes[moment] = pool.submit(kill, source, output, moment, *more)
            return outcomes[moment]

        for item in request.session.items:
            if request.fixturename in item.fixturenames and hasattr(item, "callspec"):
                begin(item.callspec.params["moment"])
        yield lambda moment: begin(moment).result()


@pytest.mark.faults
@pytest.mark.timeout(600)
@pytest.mark.parametrize("moment", POINTS)
def test_kill_at_a_point(moment: str, outcome_of: Callable[[Any], Outcome], undisturbed: dict[str, str]) -> None:
    code, files = outcome_of(moment)
    assert code == -signal.SIGKILL, "the point was never reached"
    assert files == undisturbed


@pytest.mark.faults
@pytest.mark.timeout(600)
@pytest.mark.parametrize("moment", SEEDS)
def test_kill_at_a_time(moment: int, outcome_of: Callable[[Any], Outcome], undisturbed: dict[str, str]) -> None:
    _, files = outcome_of(moment)
    assert files == undisturbed


@pytest.mark.faults
@pytest.mark.timeout(600)
def test_most_seeded_kills_hit_a_running_job(outcome_of: Callable[[Any], Outcome]) -> None:
    killed = [seed for seed in SEEDS if outcome_of(seed)[0] == -signal.SIGKILL]
    assert len(killed) > len(SEEDS) / 2


def test_kill_between_decision_and_marker(source: Path, undisturbed: dict[str, str], tmp_path: Path) -> None:
    code, files = kill_at_point(source, tmp_path / "out", "after tar is published")
    assert code == -signal.SIGKILL
    assert files == undisturbed
