"""Telling whether the plan in OUTPUT is the one that a command wants, and showing where it is not."""

from collections.abc import Iterator, Sequence
from typing import Any

from pipeline.plan.listing import list_inputs, listing_sha256
from pipeline.plan.plan import Plan
from pipeline.read.base import SourceFile
from pipeline.read.spec import canonical
from pipeline.settings import Configuration, PlanSettings
from pipeline.store.commit import decided
from schemas.names import ShardName


class PlanError(ValueError):
    """OUTPUT belongs to another configuration or other inputs; the message shows the difference. Commands exit 3."""

    exit_code = 3


def check_plan(plan: Plan, inputs: Sequence[str], configuration: Configuration, settings: PlanSettings) -> None:
    """Raise PlanError, showing the difference, unless OUTPUT's plan is that of these inputs and this configuration."""
    inputs = [canonical(spec) for spec in inputs]
    check_configuration(plan, configuration)
    first = plan.generations[0]
    for flag, planned, wanted in (
        ("--shard-size", first.shard_size, settings.shard_size),
        ("--repack", first.repack, settings.repack),
        ("--limit", first.limit, settings.limit),
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
    _check_files(plan, inputs)


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
    remedy = "choose another OUTPUT" if has_shards else "it has no shard yet: delete it, or choose another OUTPUT"
    raise PlanError("\n".join([f"{url} belongs to another configuration; {remedy}:", *lines]))


def differences(ours: Any, theirs: Any, name: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield (dotted name, our value, their value) wherever two JSON values differ; a missing value is None."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key in sorted({*ours, *theirs}):
            yield from differences(ours.get(key), theirs.get(key), f"{name}.{key}" if name else key)
    elif ours != theirs:
        yield name, ours, theirs


def _check_files(plan: Plan, inputs: Sequence[str]) -> None:
    """Compare the listings as a whole first: reading millions of planned rows is for when something has changed."""
    digests: dict[str, list[str]] = {}
    for planned in plan.inputs:
        digests.setdefault(planned.spec, []).append(planned.files_sha256)
    now = {listed.spec: listed.files for listed in list_inputs(inputs, taken=())}
    if all(digests[spec] == [listing_sha256(files)] for spec, files in now.items()):
        return
    planned_files: dict[str, dict[str, SourceFile]] = {spec: {} for spec in now}
    for planned, file in plan.files():
        planned_files[planned.spec][file.uri] = file
    for spec, files in now.items():
        _compare_files(plan.storage.url, spec, planned_files[spec], {file.uri: file for file in files})


def _compare_files(output: str, spec: str, planned: dict[str, SourceFile], now: dict[str, SourceFile]) -> None:
    added = sorted(now.keys() - planned.keys())
    removed = sorted(planned.keys() - now.keys())
    changed = sorted(uri for uri in now.keys() & planned.keys() if now[uri] != planned[uri])
    found = [
        f"{len(uris)} {what}, such as {uris[0]}"
        for what, uris in (("changed", changed), ("removed", removed), ("added", added))
        if uris
    ]
    if not found:
        return
    remedy = (
        "give --append to take the new files"
        if not changed and not removed
        else "restore them, or choose another OUTPUT"
    )
    raise PlanError(f"{spec} is not what {output} was planned from: {'; '.join(found)}; {remedy}")
