"""What an overlay is made from and by: its plan in `_overlays/NAME/plan.json`, and the shards as they are now.

The plan holds for all shards, those that are appended later too. Each shard's part of the overlay names the table that
it was made from, so where a table has changed, that shard is to do again.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from pipeline.errors import PlanError
from pipeline.plan.check import differences
from pipeline.plan.plan import Generation, Plan
from pipeline.store.storage import Storage, StorageError
from schemas.hashes import canonical_json, fingerprint
from schemas.names import LEASES_DIR, SCHEMA_VERSION, ShardName, overlay_of_file
from schemas.overlays import OverlayPlan, is_overlay_name, plan_name
from schemas.records import ShardMarker


class OverlayNameError(ValueError):
    """An overlay cannot be called so. Commands exit 2 on it."""

    exit_code = 2


@dataclass(frozen=True, kw_only=True)
class BaseShard:
    """A shard that an overlay is made for."""

    shard: ShardName
    table_sha256: str
    """Of the shard's table as it is now."""
    num_images: int
    """In its tar."""

    @classmethod
    def of(cls, shard: ShardName, marker: ShardMarker) -> "BaseShard":
        """Return the shard as its marker describes it."""
        return cls(shard=shard, table_sha256=marker.parquet.sha256, num_images=marker.images.ok)

    def decision(self, overlay: str) -> str:
        """Return the name under which the overlay's part of this very shard is committed."""
        return f"{overlay}/{self.shard}.{self.table_sha256[:16]}"


@dataclass(frozen=True, kw_only=True)
class OverlaidShards(Plan):
    """A plan whose units are the shards of a data set; what is made of each is its part of an overlay."""

    overlay: str
    bases: tuple[BaseShard, ...]
    """By unit."""

    def shards(self, unit: int) -> tuple[ShardName, ...]:
        """Return the shard that the unit is."""
        return (self.bases[unit].shard,)

    @property
    def leases(self) -> str:
        """The folder that holds the leases of the overlay's units: `annotate` may be at work beside it."""
        return f"{LEASES_DIR}/{self.overlay}"


def plan_overlay(
    storage: Storage,
    overlay: str,
    markers: Mapping[ShardName, ShardMarker],
    *,
    tool: str,
    configuration: dict[str, Any],
) -> OverlaidShards:
    """Return the plan of an overlay of the shards that there are; the first caller writes it down.

    Raises OverlayNameError, and PlanError where an overlay of that name was made by another configuration.
    """
    claim(storage, overlay, tool=tool, configuration=configuration)
    generation = Generation(
        schema_version=SCHEMA_VERSION,
        fingerprint=fingerprint(configuration),
        configuration=configuration,
        inputs=[],
        shard_size=1,
        repack=False,
        limit=None,
        first_unit=0,
        num_units=len(markers),
        num_images=sum(marker.images.ok for marker in markers.values()),
        tables={},
    )
    bases = tuple(BaseShard.of(shard, marker) for shard, marker in markers.items())
    return OverlaidShards(storage=storage, generations=(generation,), overlay=overlay, bases=bases)


def claim(
    storage: Storage, overlay: str, *, tool: str, configuration: dict[str, Any], sparse: bool = False
) -> OverlayPlan:
    """Write the plan of an overlay down unless it is there, and return it; raises as `plan_overlay` does."""
    if not is_overlay_name(overlay):
        raise OverlayNameError(f"{overlay!r} is not a name for an overlay; use small letters, digits, _ and -")
    plan = OverlayPlan(
        schema_version=SCHEMA_VERSION,
        overlay=overlay,
        tool=tool,
        fingerprint=fingerprint(configuration),
        configuration=configuration,
        sparse=sparse,
    )
    where = plan_name(overlay)
    found = read_plan(storage, overlay)
    if found is None:
        others = [name for name in storage.names("") if (overlay_of_file(name) or ("", ""))[1] == overlay]
        if others:
            raise PlanError(
                f"{storage.url}: holds {others[0]}, of an overlay {overlay!r} that has no {where}; choose another "
                "name, or take that overlay's files away"
            )
        if storage.decide(where, canonical_json(msgspec.to_builtins(plan))):
            return plan
        found = read_plan(storage, overlay)
    if found is None or (found.tool, found.fingerprint) != (tool, plan.fingerprint):
        ours = {} if found is None else {"tool": found.tool, **found.configuration}
        lines = [
            f"  {name}: {kept!r} in {where}, {now!r} now"
            for name, kept, now in differences(ours, {"tool": tool, **configuration})
        ]
        message = f"{storage.url}: the overlay {overlay!r} is of another configuration; choose another name:"
        raise PlanError("\n".join([message, *lines]))
    return found


def read_plan(storage: Storage, overlay: str) -> OverlayPlan | None:
    """Return the plan of an overlay, None where there is none. Raises StorageError for one that is damaged."""
    where = plan_name(overlay)
    try:
        return msgspec.json.decode(storage.read(where), type=OverlayPlan)
    except FileNotFoundError:
        return None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise StorageError(f"{storage.url}: {where} is damaged ({error}); restore it from a copy") from error
