"""Plans: which samples make which shard, whether a plan is the one wanted, and one plan whoever races."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.caption.rule import RuleConfig
from pipeline.plan import make as making
from pipeline.plan.check import PlanError, check_plan, differences
from pipeline.plan.make import extend_plan, make_plan
from pipeline.plan.plan import Plan, load_plan
from pipeline.propose.select import SelectSettings
from pipeline.read.base import SourceError
from pipeline.settings import Configuration, PlanSettings
from pipeline.store.commit import sweep
from pipeline.store.storage import Storage, StorageError, open_storage
from tests.builders import configuration, digests, members, write_photos, write_tar, write_tars


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    """A local OUTPUT, empty."""
    return open_storage(str(tmp_path / "out"))


@pytest.fixture
def tars(tmp_path: Path) -> Path:
    """Two tars of three images."""
    return write_tars(tmp_path / "tars", num_tars=2, num_images=3)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of five photographs."""
    return write_photos(tmp_path / "photos", 5)


def make(storage: Storage, *inputs: Path, settings: Configuration | None = None, **changes: Any) -> Plan:
    return make_plan(storage, [str(path) for path in inputs], settings or configuration(), PlanSettings(**changes))


def extend(plan: Plan, *inputs: Path, **changes: Any) -> Plan:
    return extend_plan(plan, [str(path) for path in inputs], configuration(), PlanSettings(**changes))


def check(plan: Plan, *inputs: Path, settings: Configuration | None = None, **changes: Any) -> None:
    check_plan(plan, [str(path) for path in inputs], settings or configuration(), PlanSettings(**changes))


def ranges(plan: Plan) -> list[list[tuple[str, str, int, int | None]]]:
    """Each unit's parts, as (prefix, uri, start, stop)."""
    units = [plan.unit(unit) for unit in range(plan.num_units)]
    return [[(part.prefix, part.part.uri, part.part.start, part.part.stop) for part in unit] for unit in units]


def test_tars_make_a_shard_each(storage: Storage, tars: Path) -> None:
    plan = make(storage, tars)
    assert ranges(plan) == [[("", "00000.tar", 0, None)], [("", "00001.tar", 0, None)]]
    assert plan.num_images is None
    assert plan.fingerprint == configuration().fingerprint()


def test_repacked_tars_are_cut_across_files(storage: Storage, tars: Path) -> None:
    plan = make(storage, tars, repack=True, shard_size=2)
    assert ranges(plan) == [
        [("", "00000.tar", 0, 2)],
        [("", "00000.tar", 2, 3), ("", "00001.tar", 0, 1)],
        [("", "00001.tar", 1, 3)],
    ]
    assert plan.num_images == 6


def test_a_folder_is_listed_in_the_plan(storage: Storage, photos: Path) -> None:
    plan = make(storage, photos, shard_size=2)
    listed = [[item.uri for part in plan.unit(unit) for item in part.part.items or ()] for unit in range(3)]
    assert listed == [["000.jpg", "001.jpg"], ["002.jpg", "003.jpg"], ["004.jpg"]]
    assert plan.num_images == 5


def test_several_inputs_have_prefixes(storage: Storage, tars: Path, photos: Path) -> None:
    plan = make(storage, tars, photos)
    assert [planned.prefix for planned in plan.inputs] == [parts[0][0] for parts in (ranges(plan)[0], ranges(plan)[2])]
    assert all(planned.prefix for planned in plan.inputs)
    assert plan.num_units == 3


@pytest.mark.parametrize(("limit", "sizes"), [(1, [1]), (2, [2]), (3, [2, 1]), (4, [2, 2]), (99, [2, 2, 1])])
def test_limit_takes_the_first_images_of_a_folder(storage: Storage, photos: Path, limit: int, sizes: list[int]) -> None:
    plan = make(storage, photos, shard_size=2, limit=limit)
    items = [[part.part.items or () for part in plan.unit(unit)] for unit in range(plan.num_units)]
    assert [sum(map(len, unit)) for unit in items] == sizes
    assert plan.num_images == sum(sizes)


def test_limit_counts_over_tars_and_inputs(storage: Storage, tars: Path, photos: Path) -> None:
    plan = make(storage, tars, photos, limit=7)
    assert [[(start, stop) for _, _, start, stop in unit] for unit in ranges(plan)] == [[(0, 3), (0, 3)], [(0, 1)]]
    assert plan.num_images == 7


@pytest.mark.parametrize("changes", [{"shard_size": 0}, {"limit": 0}])
def test_settings_are_checked(changes: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be at least 1"):
        PlanSettings(**changes)


def test_a_plan_is_found_again_and_travels(storage: Storage, tars: Path) -> None:
    assert load_plan(storage) is None
    made = make(storage, tars)
    found = load_plan(storage)
    assert found is not None
    assert found.generations == made.generations
    assert ranges(pickle.loads(pickle.dumps(found))) == ranges(made)
    assert storage.names("_attempts") == []
    with pytest.raises(LookupError, match="unit 2 is not in the plan"):
        found.unit(2)


def test_plans_are_the_same_bytes_everywhere(tmp_path: Path, tars: Path, photos: Path) -> None:
    for name in ("one", "two"):
        make(open_storage(str(tmp_path / name)), tars, photos, repack=True, shard_size=2)
    assert digests(tmp_path / "one") == digests(tmp_path / "two")


def test_the_same_again_is_no_difference(storage: Storage, tars: Path, photos: Path) -> None:
    plan = make(storage, tars, photos)
    check(plan, tars, photos)
    check(plan, photos, tars)


def test_an_unusable_input_plans_nothing(storage: Storage, tmp_path: Path) -> None:
    with pytest.raises(SourceError):
        make(storage, tmp_path / "nothing")
    assert load_plan(storage) is None
    assert storage.names("_attempts") == []


def test_an_input_named_twice_is_refused(storage: Storage, tars: Path) -> None:
    with pytest.raises(SourceError, match="named twice"):
        make(storage, tars, tars)


@pytest.mark.parametrize(
    ("settings", "difference"),
    [
        (configuration(caption=RuleConfig(batch_size=7)), r"captioner\.settings\.batch_size: 64 in OUTPUT, 7 now"),
        (configuration(select=SelectSettings(max_iou=0.5)), r"select\.max_iou: 0\.7 in OUTPUT, 0\.5 now"),
        (configuration(drop_empty=True), "drop_empty: False in OUTPUT, True now"),
        (configuration(val_fraction=0.1), r"val_fraction: 0\.0 in OUTPUT, 0\.1 now"),
    ],
)
def test_another_configuration_is_refused_with_the_difference(
    storage: Storage, tars: Path, settings: Configuration, difference: str
) -> None:
    plan = make(storage, tars)
    with pytest.raises(PlanError, match=difference) as refused:
        check(plan, tars, settings=settings)
    assert len(str(refused.value).splitlines()) == 2, "only what differs is shown"
    with pytest.raises(PlanError, match=difference):
        extend_plan(plan, [str(tars)], settings, PlanSettings())


def test_other_weights_are_refused_with_both_hashes(
    storage: Storage, tars: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = {"sha256": "a" * 64}
    monkeypatch.setattr("pipeline.propose.manual.Manual.weights", staticmethod(lambda config: dict(weights)))
    plan = make(storage, tars)
    check(plan, tars)
    weights["sha256"] = "b" * 64
    with pytest.raises(PlanError, match=rf"proposer\.\w+\.sha256: '{'a' * 64}' in OUTPUT, '{'b' * 64}' now"):
        check(plan, tars)


def test_differences_name_what_only_one_side_has() -> None:
    ours, theirs = {"a": {"b": 1, "c": [1, 2]}, "d": 1}, {"a": {"c": [2, 1]}, "d": 1, "e": None, "f": {"g": 0}}
    found = [("a.b", 1, None), ("a.c", [1, 2], [2, 1]), ("f", None, {"g": 0})]
    assert list(differences(ours, theirs)) == found


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"shard_size": 5}, "with --shard-size 1000, .* with --shard-size 5"),
        ({"repack": True}, "without --repack, .* with --repack"),
        ({"limit": 2}, "without --limit, .* with --limit 2"),
    ],
)
def test_another_cut_is_refused(storage: Storage, tars: Path, changes: dict[str, Any], difference: str) -> None:
    plan = make(storage, tars)
    with pytest.raises(PlanError, match=difference):
        check(plan, tars, **changes)


def test_other_inputs_are_refused(storage: Storage, tars: Path, photos: Path) -> None:
    plan = make(storage, tars)
    with pytest.raises(PlanError, match="--append to add inputs"):
        check(plan, tars, photos)
    with pytest.raises(PlanError, match="was made from"):
        check(plan, photos)


def _grow(tars: Path) -> None:
    write_tar(tars / "00000.tar", [members("other")])


def _remove(tars: Path) -> None:
    (tars / "00001.tar").unlink()


def _add(tars: Path) -> None:
    write_tar(tars / "00002.tar", [members("new")])


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        (_grow, r"1 changed, such as 00000\.tar; restore them"),
        (_remove, r"1 removed, such as 00001\.tar; restore them"),
        (_add, r"1 added, such as 00002\.tar; give --append"),
    ],
)
def test_changed_inputs_are_refused(
    storage: Storage, tars: Path, change: Callable[[Path], None], difference: str
) -> None:
    plan = make(storage, tars)
    change(tars)
    with pytest.raises(PlanError, match=difference):
        check(plan, tars)


def test_append_takes_new_files_and_new_inputs(storage: Storage, tars: Path, photos: Path) -> None:
    plan = make(storage, tars)
    write_tar(tars / "00002.tar", [members("new")])
    extended = extend(plan, tars, photos)
    uris = [unit[0][1] for unit in ranges(extended)]
    assert uris[:3] == ["00000.tar", "00001.tar", "00002.tar"]
    prefixes = [unit[0][0] for unit in ranges(extended)]
    assert prefixes[:3] == ["", "", ""]
    assert prefixes[3]
    assert extended.num_units == 4
    check(extended, tars, photos)
    assert ranges(extended)[:2] == ranges(plan)


def test_append_of_nothing_new_changes_nothing(storage: Storage, tmp_path: Path, tars: Path) -> None:
    plan = make(storage, tars)
    before = digests(tmp_path / "out")
    assert extend(plan, tars) is plan
    assert digests(tmp_path / "out") == before


def test_append_refuses_files_that_changed(storage: Storage, tars: Path) -> None:
    plan = make(storage, tars)
    _grow(tars)
    with pytest.raises(PlanError, match=r"1 planned files have changed since, such as 00000\.tar"):
        extend(plan, tars)


def _meanwhile(monkeypatch: pytest.MonkeyPatch, action: Callable[[], object]) -> None:
    """Let another job do something between the planning and the commit of the next plan."""
    commit = making.commit

    def committing(*arguments: Any) -> bool:
        monkeypatch.setattr(making, "commit", commit)
        action()
        return commit(*arguments)

    monkeypatch.setattr(making, "commit", committing)


def test_two_planners_end_up_with_one_plan(
    storage: Storage, tmp_path: Path, tars: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _meanwhile(monkeypatch, lambda: make(storage, tars))
    plan = make(storage, tars)
    assert ranges(plan) == ranges(make(open_storage(str(tmp_path / "alone")), tars))
    assert digests(tmp_path / "out") == digests(tmp_path / "alone")


def test_a_planner_finds_the_plan_of_a_job_that_has_swept_its_files_away(
    storage: Storage, tars: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _meanwhile(monkeypatch, lambda: sweep(storage, make(storage, tars).own_files()))
    assert make(storage, tars).num_units == 2


def test_the_second_of_two_planners_learns_that_it_wants_another(
    storage: Storage, tars: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _meanwhile(monkeypatch, lambda: make(storage, tars))
    with pytest.raises(PlanError, match="was made from"):
        make(storage, photos)
    assert storage.names("_attempts") == []


def test_two_appends_at_once_do_not_lose_one(
    storage: Storage, tmp_path: Path, tars: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second must not believe that its inputs were taken."""
    plan = make(storage, tars)
    more = write_photos(tmp_path / "more", 1)
    _meanwhile(monkeypatch, lambda: extend(plan, more))
    extended = extend(plan, photos)
    assert {planned.spec for planned in extended.inputs} == {str(tars), str(photos), str(more)}
    assert extended.num_units == 4
    assert len({planned.prefix for planned in extended.inputs}) == 3


def test_a_damaged_plan_is_a_storage_error(storage: Storage, tars: Path) -> None:
    make(storage, tars)
    storage.replace("_plan/plan.json", b" " * (storage.size("_plan/plan.json") or 0))
    with pytest.raises(StorageError, match=r"_plan/plan\.json is damaged"):
        load_plan(storage)


def test_append_does_not_go_with_limit(storage: Storage, tars: Path) -> None:
    """What a limit left out is among the planned files, so an append could not tell that it is missing."""
    plan = make(storage, tars, limit=2)
    with pytest.raises(PlanError, match="--append and --limit 2 do not go together"):
        extend_plan(plan, [str(tars)], configuration(), PlanSettings())
