"""The configuration that OUTPUT was made with, from its plan; what a plan does not record is given again."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from pipeline.caption.view import ViewSettings
from pipeline.errors import PlanError
from pipeline.plan.check import differences
from pipeline.plan.plan import Plan
from pipeline.propose.select import SelectSettings
from pipeline.read.exclusions import ReadSettings, load_exclusions
from pipeline.settings import Configuration


def names_of(plan: Plan) -> dict[str, str]:
    """Return the names of proposer and captioner. Raises PlanError for a data set that `annotate` has not made."""
    planned = plan.generations[0].configuration
    if "materialized" in planned:
        raise PlanError(
            f"{plan.storage.url} was made by `fineclip materialize`, from shards in which nothing is left to repeat; "
            "retry the data set that it was made from, and materialize that again"
        )
    return {kind: planned[kind]["name"] for kind in ("proposer", "captioner")}


def settings_of(plan: Plan, group: str, config_class: type[Any]) -> dict[str, Any]:
    """Return the settings of the models that the plan records, by name: `group` is `propose` or `caption`.

    In plans of earlier versions weights are recorded by hash alone: those keep their default.
    """
    given = plan.generations[0].settings.get(group)
    known = {field.name for field in dataclasses.fields(config_class)}
    if given is not None:
        return {name: value for name, value in given.items() if name in known}
    kind = {"propose": "proposer", "caption": "captioner"}[group]
    planned = plan.generations[0].configuration[kind]["settings"]
    weights = ("model", "weights", "concepts", "phrases")
    return {
        name: value for name, value in planned.items() if name in known and value is not None and name not in weights
    }


def recorded_configuration(plan: Plan, *, propose: Any, caption: Any, filters: Sequence[str]) -> Configuration:
    """Return the configuration of the data set, with these settings of its models and the filter lists it was given.

    Raises PlanError, with the differences, where it is not the one that OUTPUT was made with.
    """
    planned = plan.generations[0].configuration
    names = names_of(plan)
    inputs = [each.spec for each in plan.inputs] if len(plan.generations) == 1 else None
    configuration = Configuration(
        **names,
        propose=propose,
        caption=caption,
        read=ReadSettings(
            **planned["read"],
            allow=tuple(dict.fromkeys(folder for each in plan.generations for folder in each.allow)),
            excluded=load_exclusions(filters, inputs, proposer=names["proposer"]),
        ),
        select=SelectSettings(**planned["select"]),
        view=_view(planned["view"]),
        val_fraction=planned["val_fraction"],
        drop_empty=planned["drop_empty"],
    )
    _check(plan, configuration)
    return configuration


def _view(planned: Mapping[str, Any]) -> ViewSettings:
    scale = {"scale": planned["scale"]} if "scale" in planned else {}
    return ViewSettings(view=planned["name"], **scale)


def _check(plan: Plan, configuration: Configuration) -> None:
    if plan.fingerprint == configuration.fingerprint():
        return
    found = differences(plan.generations[0].configuration, msgspec.to_builtins(configuration.as_json()))
    lines = [f"  {name}: {theirs!r} in OUTPUT, {now!r} now" for name, theirs, now in found]
    remedy = "give what its plan does not record (weights that lie elsewhere now: --propose.model, --caption.model"
    remedy += "; lists: --filter), or run the release of fineclip that made it"
    raise PlanError("\n".join([f"{plan.storage.url} was made otherwise than it would be repeated; {remedy}:", *lines]))
