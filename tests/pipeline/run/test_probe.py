"""Probing: a rate and its range by hand, what is extrapolated by what, and the command end to end."""

import re
import tempfile
from pathlib import Path
from typing import Any

import pytest

from pipeline.plan.make import make_plan
from pipeline.plan.plan import Plan
from pipeline.read.base import SourceError
from pipeline.run.probe import MeasuredUnit, Measurement, ProbeSettings, Workload, forecast, probe, rate, workload
from pipeline.settings import PlanSettings, RunSettings
from pipeline.store.storage import open_storage
from tests.builders import CHEAP, configuration, jpeg, members, read_markers, run, write_photos, write_tar, write_tars


def unit(images: int, wall_s: float, commit_s: float = 0.0, **changes: Any) -> MeasuredUnit:
    """A unit in which captioning takes all but the commit."""
    values: dict[str, Any] = {
        "images": images,
        "regions": 4 * images,
        "captions": 3 * images,
        "dead": 0,
        "num_bytes": 1000 * images,
        "wall_s": wall_s,
        "seconds": {"caption": wall_s - commit_s, "commit": commit_s},
    }
    return MeasuredUnit(**values | changes)


def measured(*units: MeasuredUnit, load_s: float = 0.0) -> Measurement:
    return Measurement(units=units, load_s=load_s, batch_size=8, uses_gpu=False, inputs=("in",))


def work(images: int, units: int = 1) -> Workload:
    return Workload(images=images, is_estimated=False, units=units, shards=units)


def make(output: Path, *inputs: Path, **changes: Any) -> Plan:
    return make_plan(
        open_storage(str(output)), [str(path) for path in inputs], configuration(), PlanSettings(**changes)
    )


def test_a_rate_is_the_median_of_the_stretches_between_their_extremes():
    found = rate([10.0, 60.0, 14.0], [10, 40, 10])
    assert (found.value, found.low, found.high) == (1.4, 1.0, 1.5)


def test_commits_count_by_the_unit_loading_once_and_all_else_by_the_image():
    found = forecast(measured(unit(10, 6.0, 1.0), unit(10, 8.0, 3.0), load_s=7.0), work(images=1000, units=5))
    # 5 s without commit for 10 images; 2 s a commit
    assert found.seconds.value == pytest.approx(1000 * 0.5 + 5 * 2 + 7)
    assert (found.seconds.low, found.seconds.high) == (pytest.approx(517), pytest.approx(517))
    assert found.regions.value == 4000
    assert found.captions.value == 3000
    assert found.num_bytes.value == 1_000_000
    assert dict(found.shares)["caption"] == pytest.approx(500 / 510)
    assert dict(found.shares)["commit"] == pytest.approx(10 / 510)


def test_the_bottleneck_comes_first_and_time_of_no_stage_is_other():
    seconds = {"propose": 1.0, "caption": 5.0, "decode": 2.0}
    found = forecast(measured(unit(10, 10.0, seconds=seconds), unit(10, 10.0, seconds=seconds)), work(100))
    assert found.shares == (
        ("caption", pytest.approx(0.5)),
        ("decode", pytest.approx(0.2)),
        ("other", pytest.approx(0.2)),
        ("propose", pytest.approx(0.1)),
        ("commit", 0.0),
    )


def test_the_dead_are_a_share_of_images_and_regions():
    found = forecast(measured(unit(10, 1.0, dead=5), unit(10, 1.0)), work(100))
    assert found.dead_fraction == 5 / 100


def test_work_that_is_partly_done_is_estimated_by_its_share(tmp_path: Path):
    plan = make(tmp_path / "out", write_photos(tmp_path / "photos", 10), shard_size=5)
    assert workload(plan, [0, 1]) == Workload(images=10, is_estimated=False, units=2, shards=2)
    assert workload(plan, [1]) == Workload(images=5, is_estimated=True, units=1, shards=1)


def test_tars_that_were_not_walked_are_estimated_by_the_bytes_of_the_first(tmp_path: Path):
    tars = tmp_path / "tars"
    for tar in range(4):
        write_tar(tars / f"{tar}.tar", (members("same", image=b"x" * 50_000) for _ in range(10)))
    small = write_tar(tars / "4.tar", (members("same", image=b"x" * 50_000) for _ in range(5)))
    plan = make(tmp_path / "out", tars)
    assert plan.num_images is None
    first = (tars / "0.tar").stat().st_size
    expected = round(40 + 10 * small.stat().st_size / first)
    assert expected in (45, 46)  # a tar ends with padding
    assert workload(plan, range(5)) == Workload(images=expected, is_estimated=True, units=5, shards=5)


def test_inputs_that_were_counted_need_no_estimate_beside_one_that_was_not(tmp_path: Path):
    tar = write_tar(tmp_path / "a.tar", (members(f"k{index}") for index in range(7)))
    plan = make(tmp_path / "out", write_photos(tmp_path / "photos", 4), tar, shard_size=3)
    assert plan.num_images is None
    assert workload(plan, range(plan.num_units)).images == 4 + 7


def test_a_probe_measures_all_but_its_first_unit_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    plan = make(tmp_path / "out", write_tars(tmp_path / "tars", 2, 12))
    seen: list[tuple[int, int]] = []
    found = probe(plan, configuration(), RunSettings(), num_images=18, watch=lambda *progress: seen.append(progress))
    assert [(each.images, each.regions, each.captions, each.dead) for each in found.units] == [(2, 4, 4, 0)] * 8
    assert all(each.num_bytes > 2 * 3000 and each.wall_s >= sum(each.seconds.values()) > 0 for each in found.units)
    assert found.images == 16
    assert seen == [(done, 18) for done in range(2, 19, 2)]
    assert found.inputs == (str(tmp_path / "tars"),)
    assert list(scratch.iterdir()) == []
    assert read_markers(tmp_path / "out") == []


def test_a_probe_of_more_than_there_is_takes_all_in_smaller_stretches(tmp_path: Path):
    plan = make(tmp_path / "out", write_tars(tmp_path / "tars", 1, 6))  # not counted: the plan does not know of 6
    assert [each.images for each in probe(plan, configuration(), RunSettings(), num_images=500).units] == [1] * 5


def test_a_probe_looks_all_over_the_inputs(tmp_path: Path):
    tars = tmp_path / "tars"
    for number in range(20):  # ten times as many bytes in the last tars
        image = jpeg(number, *((32, 32) if number < 10 else (320, 320)))
        write_tar(tars / f"{number:02}.tar", (members(f"k{number}-{index}", image=image) for index in range(4)))
    plan = make(tmp_path / "out", tars)
    found = probe(plan, configuration(), RunSettings(), num_images=18)
    sizes = [each.num_bytes for each in found.units]
    assert max(sizes[4:]) > 2 * max(sizes[:3])
    assert [each.images for each in found.units] == [2] * 8


def test_too_few_images_are_refused_by_name(tmp_path: Path):
    plan = make(tmp_path / "out", write_photos(tmp_path / "photos", 2))
    with pytest.raises(SourceError, match="photos: 2 images are too few for a probe, which needs 3"):
        probe(plan, configuration(), RunSettings(), num_images=64)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"probe": 2}, "--probe is 2, but must be at least 3"),
        ({"price_per_hour": 1.0}, "give --probe N too"),
        ({"probe": 9, "price_per_hour": -1.0}, "--price-per-hour is -1.0"),
        ({"probe": 9, "price_per_hour": float("nan")}, "--price-per-hour is nan"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        ProbeSettings(**settings)


def test_the_command_shows_what_the_job_would_take_and_cost(tmp_path: Path):
    photos = write_photos(tmp_path / "photos", 30)
    flags = ("--profile", "weightless", "--propose.working-side", "64", "--shard-size", "10")
    outcome = run("plan", photos, tmp_path / "out", *flags, "--probe", "6", "--price-per-hour", "1000")
    assert outcome.code == 0, outcome
    assert max(map(len, outcome.out.splitlines())) <= 80
    words = " ".join(outcome.out.split())
    assert "3 shards, images: 30; 3 of 3 units to do." in words
    for pattern in (
        r"images 30 regions [\d.]+ [\d.]+ - [\d.]+ [\d.]+ per image captions",
        r"output [\d.]+ [KM]B [\d.]+ [KM]?B - [\d.]+ [KM]B [\d.]+ KB per image shards 3 machine-hours [\d.]+",
        r"cost [\d.]+ [\d.]+ - [\d.]+ at 1,000.00 an hour",
        r"ETA [\d.]+ (ms|s|min) .* with one worker process",
        r"Bottleneck: propose, \d+% of the time; then",
        "Measured here: 5 images in 5 stretches",
    ):
        assert re.search(pattern, words), (pattern, words)
    assert read_markers(tmp_path / "out") == []
    assert run("annotate", photos, tmp_path / "out", *flags).code == 0  # the plan that was probed is taken


def test_the_command_says_what_its_ranges_do_not_know(tmp_path: Path):
    tars = write_tars(tmp_path / "tars", 1, 5)
    broken = write_tar(tmp_path / "b.tar", (members(f"k{index}", image=b"not an image") for index in range(5)))
    flags = (*CHEAP, "--workers", "2", "--probe", "8")
    words = " ".join(run("plan", tars, broken, tmp_path / "out", *flags).out.split())
    assert "images 10 estimated" in words
    assert re.search(r"Note: [\d.]+% of the probe are dead, more than --max-dead 1.00%", words)
    assert "the number of images is estimated" in words
    assert "--workers 2 at best divides the time by 2" in words
    many = [write_tars(tmp_path / f"more{number}", 1, 3) for number in range(12)]
    some = " ".join(run("plan", *many, tmp_path / "most", *CHEAP, "--probe", "4").out.split())
    assert re.search(r"the probe saw .*more0, .*more3.* alone; 8 other inputs are taken to be like them", some)


def test_only_plan_probes_and_a_finished_data_set_does_not(tmp_path: Path):
    photos = write_photos(tmp_path / "photos", 3)
    assert run("annotate", photos, tmp_path / "out", *CHEAP, "--probe", "3").code == 2
    assert run("plan", photos, tmp_path / "out", *CHEAP, "--probe", "2").code == 2
    assert run("annotate", photos, tmp_path / "out", *CHEAP).code == 0
    outcome = run("plan", photos, tmp_path / "out", *CHEAP, "--probe", "3")
    assert (outcome.code, "Bottleneck" in outcome.out) == (0, False)
    assert "0 of 1 unit to do." in outcome.out
