"""Telling whether the plan in OUTPUT is the one that a command wants, and showing where it is not."""

from collections.abc import Iterator, Sequence
from typing import Any

from pipeline.errors import PlanError
from pipeline.plan.listing import ListedInput, list_inputs, listing_sha256
from pipeline.plan.plan import Plan
from pipeline.plan.samples import changed_files
from pipeline.read.base import SourceFile
from pipeline.read.spec import canonical
from pipeline.settings import Configuration, PlanSettings
from pipeline.store.commit import decided
from schemas.names import LEASES_DIR, ShardName
from schemas.paths import as_path, printable


def check_plan(
    plan: Plan,
    inputs: Sequence[str],
    configuration: Configuration,
    settings: PlanSettings,
    *,
    trust_inputs: bool = False,
) -> None:
    """Raise PlanError, showing the difference, unless OUTPUT's plan is that of these inputs and this configuration.

    With `trust_inputs` planned files may have changed or gone.
    """
    inputs = [canonical(spec) for spec in inputs]
    check_configuration(plan, configuration)
    first = plan.generations[0]
    for flag, planned, wanted in (
        ("--shard-size", first.shard_size, settings.shard_size),
        ("--repack", first.repack, settings.repack),
        ("--limit", first.limit, settings.limit),
        ("--read.allow", _folders(first.allow), _folders(configuration.read.allow)),
    ):
        if planned != wanted:
            raise PlanError(
                f"{plan.storage.url} was planned {_with_flag(flag, planned)}, and this command is "
                f"{_with_flag(flag, wanted)}; give the same, or choose another OUTPUT"
            )
    specs = list(dict.fromkeys(planned.spec for planned in plan.inputs))
    if sorted(specs) != sorted(inputs):
        raise PlanError(
            f"{plan.storage.url} was made from {', '.join(specs)}, not from {', '.join(inputs)}; name them all, "
            "give --append to add inputs, or choose another OUTPUT"
        )
    _check_files(plan, inputs, configuration, trust_inputs=trust_inputs)


def _folders(allow: Sequence[str]) -> str | None:
    return ", ".join(sorted(map(as_path, allow))) or None


def _with_flag(flag: str, value: object) -> str:
    return f"without {flag}" if value in (None, False) else f"with {flag}" + ("" if value is True else f" {value}")


def check_configuration(plan: Plan, configuration: Configuration) -> None:
    """Raise PlanError, with the differences, unless OUTPUT was planned with this configuration."""
    if plan.fingerprint == configuration.fingerprint():
        return
    lines = [
        f"  {name}: {ours!r} in OUTPUT, {theirs!r} now"
        for name, ours, theirs in differences(plan.generations[0].configuration, configuration.as_json())
    ]
    url = plan.storage.url
    has_shards = any(map(ShardName.parse, decided(plan.storage)))
    if plan.storage.names(LEASES_DIR):
        remedy = "another job is at work on it: choose another OUTPUT"
    elif has_shards:
        remedy = "choose another OUTPUT"
    else:
        remedy = "it has no shard yet: delete it if no job is to go on with it, or choose another OUTPUT"
    raise PlanError("\n".join([f"{url} belongs to another configuration; {remedy}:", *lines]))


def differences(ours: Any, theirs: Any, name: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield (dotted name, our value, their value) wherever two JSON values differ; a missing value is None."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key in sorted({*ours, *theirs}):
            yield from differences(ours.get(key), theirs.get(key), f"{name}.{key}" if name else key)
    elif ours != theirs:
        yield name, ours, theirs


def _check_files(plan: Plan, inputs: Sequence[str], configuration: Configuration, *, trust_inputs: bool) -> None:
    """Compare the listings as a whole first: reading millions of planned rows is for when something has changed."""
    digests: dict[str, list[str]] = {}
    for planned in plan.inputs:
        digests.setdefault(planned.spec, []).append(planned.files_sha256)
    now = list_inputs(inputs, taken=(), allow=configuration.read.allow)
    if all(digests[listed.spec] == [listing_sha256(listed.files)] for listed in now):
        return
    planned_files = plan.files_by_input()
    for listed in now:
        _compare_files(plan.storage.url, listed, planned_files[listed.spec], trust_inputs=trust_inputs)


def _compare_files(output: str, listed: ListedInput, planned: dict[str, SourceFile], *, trust_inputs: bool) -> None:
    now = {file.uri: file for file in listed.files}
    added = sorted(now.keys() - planned.keys())
    removed = [] if trust_inputs else sorted(planned.keys() - now.keys())
    changed = [] if trust_inputs else changed_files(listed.root, planned, now)
    found = [
        f"{len(uris)} {what}, such as {printable(uris[0])}"
        for what, uris in (("changed", changed), ("removed", removed), ("added", added))
        if uris
    ]
    if not found:
        return
    remedy = (
        "give --append to take the new files"
        if not changed and not removed
        else "restore them, choose another OUTPUT, or go on with --trust-inputs where what is finished may stay"
    )
    raise PlanError(f"{listed.spec} is not what {output} was planned from: {'; '.join(found)}; {remedy}")
