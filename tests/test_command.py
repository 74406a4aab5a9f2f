"""The command as a person meets it: help, wrong usage, config files, refusals; none of them with a traceback."""

import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import yaml

import fineclip
from tests.builders import (
    CHEAP,
    SEARCH,
    annotate,
    data_files,
    jpeg,
    members,
    read_markers,
    run,
    write_files,
    write_photos,
    write_tar,
    write_tars,
)

ROOT = Path(fineclip.__file__).parent
WIDE = ((2.0, 2.0, 42.0, 42.0), (10.0, 2.0, 50.0, 42.0))
"""Two boxes with IoU 2/3: one region or two, by --select.max-iou 0.5 (the profile's) or 0.7 (the plain default)."""


def python(code: str, **options: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, **options)  # type: ignore[call-overload,no-any-return]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_photos(tmp_path / "photos", 3)


def test_help_lists_every_subcommand_with_a_summary():
    for arguments in ([], ["--help"], ["-h"], ["help"]):
        outcome = run(*arguments)
        assert outcome.code == 0
        for name, subcommand in fineclip.SUBCOMMANDS.items():
            assert f"  {name} " in outcome.out
            assert subcommand.summary in outcome.out


@pytest.mark.parametrize("name", ["annotate", "plan", "retry", "recaption", "materialize"])
def test_each_subcommand_explains_itself_and_its_exit_codes(name: str):
    outcome = run(name, "--help")
    assert outcome.code == 0
    assert outcome.out.startswith(f"usage: fineclip {name} ")
    assert "3  refused" in outcome.out


@pytest.mark.parametrize("name", [*fineclip.SUBCOMMANDS])
def test_the_help_of_every_subcommand_fits_80_columns_and_is_for_people(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("COLUMNS", "80")
    uses = ([], ["train"], ["evaluate"], ["predict"]) if name in ("detect", "segment") else ([],)
    for use in uses:
        try:
            assert fineclip.main([name, *use, "--help"]) == 0
        except SystemExit as exited:
            assert exited.code == 0
    told = capsys.readouterr().out
    assert not [line for line in told.splitlines() if len(line) > 80]
    assert "option_strings" not in told  # argparse fills in such names where a help has a lone %
    assert not re.search(r"[a-z]-$", told, re.MULTILINE)  # a flag cut in two cannot be copied


def test_help_fits_the_terminal_and_shows_defaults_and_units(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "80")
    text = run("annotate", "--help").out
    assert max(map(len, text.splitlines())) <= 80
    assert "Traceback" not in text
    words = " ".join(text.split())
    assert "--shard-size SHARD_SIZE Images per shard, for sources that are not already tars. (default: 1000)" in words
    assert (
        "--select.min-side MIN_SIDE Shortest allowed side of a box within the image, in pixels. (default: 8.0)" in words
    )
    assert "--read.max-bytes MAX_BYTES Largest image file, in bytes. (default: 268435456)" in words
    assert not re.search(r"\(default: (None|False)\)", text)


def test_the_paper_s_models_say_what_they_would_cost_without_a_gpu(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("pipeline.cli.command.num_gpus", lambda: 0)
    outcome = run("annotate", photos, tmp_path / "out")
    assert outcome.code == 2
    words = " ".join(outcome.err.split())
    assert re.search(r"[\d,]+ s per image, .* and 31 GB of memory", words)
    assert "--profile weightless" in words
    assert not (tmp_path / "out").exists()


def test_the_permissive_profile_wants_a_gpu_too(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("pipeline.cli.command.num_gpus", lambda: 0)
    outcome = run("annotate", photos, tmp_path / "out", "--profile", "permissive")
    assert outcome.code == 2
    said = " ".join(outcome.err.split())
    assert re.search(r"[\d,]+ s per image, [\d,]+ hours for 1,000; its weights alone are \d+ GB of memory", said)
    assert not (tmp_path / "out").exists()


def test_without_weights_the_flag_that_takes_a_path_is_named(photos: Path, tmp_path: Path):
    outcome = run("annotate", photos, tmp_path / "out", "--device", "cpu")
    assert outcome.code == 2
    assert "--propose.model yolov9c.pt" in outcome.err
    assert "local path" in " ".join(outcome.err.split())


@pytest.mark.parametrize("proposer", ["manual", "selective_search"])
def test_help_shows_the_settings_of_the_chosen_proposer(proposer: str):
    text = run("annotate", "--help", "--proposer", proposer).out
    assert ("--propose.working-side" in text) == (proposer == "selective_search")


WRONG = {
    "": "give at least one INPUT, and OUTPUT last",
    "photos": "give at least one INPUT, and OUTPUT last",
    "photos --limit 3 out": "unrecognized arguments: out (one too many, or apart from the others)",
    "photos out -- more": "more: is no option of Beam's; INPUT and OUTPUT stand before the `--`",
    "photos out --bogus 3": "unrecognized arguments: --bogus",
    "photos out --sheld-size 3": "did you mean --shard-size?",
    "photos out --select.max-region 3": "did you mean --select.max-regions?",
    "photos out --proposer yolov9 --propose.sha265 x": "did you mean --propose.sha256?\n",
    "photos out --propose.sha265 x": "did you mean --propose.sha256? (a setting of yolov9,",
    "photos out --selects.min-side 3": "did you mean --select.min-side?",
    "photos out --propose.model x": "(a setting of yolov9, fastsam, rpn, detr, grounding, sam, sam3: choose",
    "photos out --shard-size many": "--shard-size is 'many', but must be a whole number",
    "photos out --shard-size 0": "--shard-size is 0, but must be at least 1",
    "photos out --limit x": "--limit is 'x', but must be a whole number",
    "photos out --limit 0": "--limit is 0, but must be at least 1",
    "photos out --workers 0": "--workers is 0, but must be at least 1",
    "photos out --max-dead 3": "--max-dead is 3.0, but must be between 0 and 1",
    "photos out --val-fraction 1": "--val-fraction is 1.0, but must be at least 0 and below 1",
    "photos out --select.max-iou 7": "--select.max-iou is 7.0, but must be between 0 and 1",
    "photos out --proposer yolo": "unknown proposer 'yolo'; did you mean 'yolov9'? (known:",
    "photos out --captioner gpt": "unknown captioner 'gpt' (known:",
    "photos out --profile papr": "unknown profile 'papr'; did you mean 'paper'? (known:",
    "photos out --captione rule": "--captione",
    "photos out --propose.working-side 3": "--propose.working-side",
    "photos out --config nowhere.yaml": "--config nowhere.yaml: No such file or directory",
    "photos photos out": "an INPUT is named twice",
    "photos photos": "OUTPUT photos lies in INPUT photos",
    "photos ./photos/out": "OUTPUT ./photos/out lies in INPUT photos",
    "folder:photos?captions=x photos/out": "lies in INPUT folder:photos",
    "photos out --proposer yolov9 --propose.model gone.pt": "--propose.model gone.pt: there is no such file",
    "video:photos out": "unknown kind 'video'",
    "photos?caption=x out": "unknown option 'caption'",
}


@pytest.mark.parametrize("arguments", WRONG)
def test_wrong_usage_is_exit_code_2_and_a_sentence(photos: Path, monkeypatch: pytest.MonkeyPatch, arguments: str):
    monkeypatch.chdir(photos.parent)
    outcome = run("annotate", *CHEAP, *arguments.split())
    assert outcome.code == 2, outcome
    assert WRONG[arguments] in outcome.err
    assert "Traceback" not in outcome.err
    assert not Path("out").exists()


def test_an_empty_output_is_exit_code_2(photos: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    outcome = run("annotate", photos, "", *CHEAP)
    assert outcome.code == 2
    assert "OUTPUT is empty" in outcome.err
    assert list(Path.cwd().iterdir()) == []


@pytest.mark.parametrize("subcommand", ["annotate", "plan"])
@pytest.mark.parametrize("name", ["README.md", "dataset.json", "train-000000.tar"])
def test_files_of_somebody_else_are_not_overwritten(photos: Path, tmp_path: Path, subcommand: str, name: str):
    output = write_files(tmp_path / "out", {name: b"mine"})
    outcome = run(subcommand, photos, output, *CHEAP)
    assert outcome.code == 3
    assert f"holds {name}, which would be overwritten" in outcome.err
    assert [path.name for path in output.iterdir()] == [name]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (CHEAP, "takes the boxes that come with the images"),
        (("--profile", "weightless", "--", "--runer=FlinkRunner"), "did you mean --runner?"),
    ],
)
def test_a_refused_command_leaves_nothing_behind(
    photos: Path, tmp_path: Path, arguments: tuple[str, ...], message: str
):
    for record in photos.glob("*.json"):
        record.unlink()
    outcome = run("annotate", photos, tmp_path / "new" / "out", *arguments)
    assert outcome.code == 2
    assert message in outcome.err
    assert not (tmp_path / "new").exists()


def test_a_refused_command_leaves_a_folder_that_was_there(tmp_path: Path):
    photos = write_files(tmp_path / "photos", {"a.jpg": jpeg(0)})
    (tmp_path / "out").mkdir()
    assert run("plan", photos, tmp_path / "out", *CHEAP).code == 2
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no /proc here")
@pytest.mark.parametrize("command", ["annotate", "plan"])
def test_an_output_where_no_folder_can_be_made_is_told_at_once(
    photos: Path, monkeypatch: pytest.MonkeyPatch, command: str
):
    monkeypatch.setattr("schemas.store_errors.time.sleep", None)
    outcome = run(command, photos, "/proc/xx", *CHEAP[2:], "--proposer", "selective_search")
    assert outcome.code == 5
    assert "/proc/xx: no folder can be made there: choose another OUTPUT" in outcome.err


def test_an_unknown_subcommand_is_exit_code_2():
    outcome = run("anotate")
    assert outcome.code == 2
    assert "there is no subcommand 'anotate'; did you mean 'annotate'?" in outcome.err
    assert "`fineclip --help` lists them" in outcome.err


CONFIGS = {
    "bogus: 3": "--bogus: there is no such setting",
    "sheld_size: 3": "--sheld-size: there is no such setting; did you mean --shard-size?",
    "select: {max_region: 3}": "--select.max-region: there is no such setting; did you mean --select.max-regions?",
    "propose: {sha265: x}": "did you mean --propose.sha256?",
    "select: 3": "select is 3, but must hold settings, as in {'min_image_side': 32}",
    "shard_size: many": "many",
    "[1, 2]": "holds no settings",
    "a: [": "while parsing",
    "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]": "aliases (*NAME) are not read",
    "a: " + "[" * 5000 + "]" * 5000: "nested too deeply",
    "profile: none": "unknown profile 'none' (known:",
    "proposer: yolo": "unknown proposer 'yolo'; did you mean 'yolov9'? (known:",
    "proposer: [manual]": "unknown proposer ['manual']; did you mean 'manual'? (known:",
}


@pytest.mark.parametrize("text", CONFIGS)
def test_a_wrong_config_file_is_exit_code_2_and_a_sentence(photos: Path, tmp_path: Path, text: str):
    config = tmp_path / "config.yaml"
    config.write_text(text)
    outcome = run("annotate", photos, tmp_path / "out", "--config", config)
    assert outcome.code == 2, outcome
    assert CONFIGS[text] in outcome.err
    assert not (tmp_path / "out").exists()


def settings(tmp_path: Path, config: str, *flags: str) -> dict[str, object]:
    """The settings that a config file and flags come to."""
    (tmp_path / "config.yaml").write_text(config)
    outcome = run("annotate", "in", "out", "--config", tmp_path / "config.yaml", *flags, "--print-config")
    assert outcome.code == 0, outcome
    values: dict[str, object] = yaml.safe_load(outcome.out)
    return values


def test_flags_come_before_the_config_file_and_that_before_the_profile(tmp_path: Path):
    config = "profile: weightless\nselect: {max_regions: 4, min_side: 9}\nshard_size: 10"
    found = settings(tmp_path, config, "--select.max-regions", "3")
    assert found["select"] == {
        "min_image_side": 32,  # the plain default
        "min_side": 9.0,
        "min_score": 0.0,
        "max_iou": 0.5,  # the profile's
        "max_regions": 3,
        "max_proposals": 100,
    }
    assert found["shard_size"] == 10
    assert (found["proposer"], found["captioner"]) == ("selective_search", "rule")


def test_a_config_file_chooses_the_backends_unless_a_flag_does(tmp_path: Path):
    assert settings(tmp_path, "proposer: manual")["proposer"] == "manual"
    assert settings(tmp_path, "proposer: manual", "--proposer", "selective_search")["proposer"] == "selective_search"


def test_a_printed_config_can_be_given_again(photos: Path, tmp_path: Path):
    printed = run("annotate", photos, tmp_path / "out", *CHEAP, "--select.min-side", "5", "--print-config").out
    values = {name: value for name, value in yaml.safe_load(printed).items() if name != "paths"}
    assert settings(tmp_path, yaml.safe_dump(values))["select"] == values["select"]


def test_settings_of_a_profile_hold_for_its_own_proposer_alone(tmp_path: Path):
    source = write_tar(tmp_path / "a.tar", [members("wide", boxes=WIDE)])
    annotate(source, tmp_path / "out")
    (marker,) = read_markers(tmp_path / "out")
    assert marker.regions.ok == 2


def test_status_counts_what_is_there(photos: Path, tmp_path: Path):
    annotate(photos, tmp_path / "out")
    outcome = run("status", tmp_path / "out")
    assert outcome.code == 0
    assert re.search(r"images +3 +3 +0 +0", outcome.out)
    assert "1 shard," in outcome.out and "complete." in outcome.out


@pytest.mark.parametrize("exists", [True, False])
def test_status_of_nothing_says_so(tmp_path: Path, exists: bool):
    if exists:
        (tmp_path / "out").mkdir()
    outcome = run("status", tmp_path / "out")
    assert outcome.code == 2
    assert "no data set is here" in outcome.err
    assert list(tmp_path.glob("out/*")) == []


LIGHT = {
    "status out --ded": "unrecognized arguments: --ded; did you mean --dead?",
    "status out other": "unrecognized arguments: other: too many are given",
    "status out --reason decod": "did you mean decode?",
    "status out --watch --dead": "--watch counts and --dead lists: give one of them",
    "status ": "OUTPUT is empty",
    "view out --prot 3": "did you mean --port?",
    "view out --port x": "--port is 'x', but must be a whole number",
    "view file.txt": "file.txt: a file, no folder",
    "sheet out s.html --limit 2.5": "--limit is '2.5', but must be a whole number",
    "sheet file.txt s.html": "file.txt: a file, no folder",
    "doctor out --max-repeted 1": "did you mean --max-repeated?",
    "doctor out --sample x": "invalid whole number value: 'x'",
    "doctor out --json nowhere/found.json": "--json nowhere/found.json: there is no folder nowhere",
    "doctor file.txt": "file.txt: a file, no folder",
    "materialize out new --overlay a --over b": "did you mean --overlay?",
    "score out --filtr x": "did you mean --filter?",
    "train-mini detecter --run x": "did you mean detector?",
}


@pytest.mark.parametrize("arguments", LIGHT)
def test_wrong_usage_of_the_light_commands_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: str
):
    monkeypatch.chdir(tmp_path)
    Path("file.txt").write_text("no data set")
    outcome = run(*arguments.split(" "))
    assert outcome.code == 2, outcome
    assert LIGHT[arguments] in outcome.err


@pytest.mark.parametrize("arguments", [(), ("a", "b"), ("--bogus",)])
def test_status_takes_one_folder(arguments: tuple[str, ...]):
    outcome = run("status", *arguments)
    assert outcome.code == 2
    assert "usage: fineclip status [-h] [--dead] [--reason R] [--watch] OUTPUT" in outcome.err


def test_plan_shows_the_work_and_annotate_takes_the_plan(photos: Path, tmp_path: Path):
    planned = run("plan", photos, tmp_path / "out", *CHEAP, "--shard-size", "2")
    assert planned.code == 0, planned
    assert "2 shards, images: 3; 2 of 2 units to do." in planned.out
    assert not read_markers(tmp_path / "out")
    annotate(photos, tmp_path / "out", "--shard-size", "2")
    assert "0 of 2 units to do." in run("plan", photos, tmp_path / "out", *CHEAP, "--shard-size", "2").out


def test_a_finished_job_has_nothing_to_do(photos: Path, tmp_path: Path):
    annotate(photos, tmp_path / "out")
    before = data_files(tmp_path / "out")
    outcome = annotate(photos, tmp_path / "out")
    assert "Nothing to do" in outcome.out
    assert data_files(tmp_path / "out") == before


@pytest.mark.parametrize(
    ("flags", "difference"),
    [
        (("--select.min-side", "9"), "select.min_side: 8.0 in OUTPUT, 9.0 now"),
        (("--drop-empty",), "drop_empty: False in OUTPUT, True now"),
        (("--shard-size", "7"), "was planned with --shard-size 1000, and this command is with --shard-size 7"),
        (("--limit", "1"), "was planned without --limit, and this command is with --limit 1"),
    ],
)
def test_another_configuration_is_refused_with_the_difference(
    photos: Path, tmp_path: Path, flags: tuple[str, ...], difference: str
):
    annotate(photos, tmp_path / "out")
    before = data_files(tmp_path / "out")
    outcome = run("annotate", photos, tmp_path / "out", *CHEAP, *flags)
    assert outcome.code == 3
    assert difference in outcome.err
    assert data_files(tmp_path / "out") == before


def test_another_input_is_refused(photos: Path, tmp_path: Path):
    annotate(photos, tmp_path / "out")
    other = write_photos(tmp_path / "other", 1)
    outcome = run("annotate", other, tmp_path / "out", *CHEAP)
    assert outcome.code == 3
    assert "give --append to add inputs" in outcome.err


def test_a_changed_input_is_refused(photos: Path, tmp_path: Path):
    annotate(photos, tmp_path / "out")
    image = (photos / "001.jpg").read_bytes()
    (photos / "001.jpg").write_bytes(image[:-3] + b"." + image[-2:])
    for flags in ((), ("--append",)):
        outcome = run("annotate", photos, tmp_path / "out", *CHEAP, *flags)
        assert outcome.code == 3
        assert "001.jpg" in outcome.err


def test_progress_in_a_log_is_lines_and_the_table_fits_80_columns(tmp_path: Path):
    source = write_tars(tmp_path / "source", 1, 2)
    outcome = annotate(source, tmp_path / "out")
    assert "\x1b" not in outcome.out + outcome.err
    table, _, rest = outcome.out.partition("Data set: ")
    assert rest.strip() == str(tmp_path / "out")
    assert max(map(len, table.splitlines())) <= 80
    words = " ".join(table.split())
    assert "images 2 2 0 0" in words and "regions 8 4 4 0" in words
    assert "2 regions filtered: small a side of the box is below --select.min-side" in words


def test_the_version_is_that_of_the_installed_package():
    assert run("--version").out == f"fineclip {metadata.version('fineclip-regions')}\n"


@pytest.mark.parametrize("package", ["schemas", "pipeline", "trainer"])
@pytest.mark.parametrize("form", ["{}.py", "{}/__init__.py"])
def test_another_package_of_our_name_is_noticed(tmp_path: Path, package: str, form: str):
    path = tmp_path / form.format(package)
    path.parent.mkdir(exist_ok=True)
    path.write_text("raise SystemExit('somebody else')")
    code = "import sys; sys.path.insert(0, '.'); import fineclip; sys.exit(fineclip.main(sys.argv[1:]))"
    name = "train" if package == "trainer" else "status"
    ran = subprocess.run([sys.executable, "-c", code, name, "x"], cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode == 2
    assert f"the package '{package}' that Python finds is {path}, not ours" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_a_package_installed_over_ours_is_noticed(tmp_path: Path):
    shutil.copy(fineclip.__file__, tmp_path)
    for package in ("schemas", "trainer"):
        (tmp_path / package).mkdir()
        ours = (ROOT / package / "__init__.py").read_text()
        (tmp_path / package / "__init__.py").write_text(ours if package == "schemas" else "# somebody else's\n")
    code = "import sys; sys.path.insert(0, '.'); import fineclip; sys.exit(fineclip.main(['train', 'x']))"
    ran = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode == 2
    assert f"the package 'trainer' that Python finds is {tmp_path}/trainer/__init__.py, not ours" in ran.stderr


def test_help_imports_neither_beam_nor_numpy():
    code = (
        "import sys, fineclip; fineclip.main(['--help']); print({'apache_beam', 'numpy', 'pipeline'} & {*sys.modules})"
    )
    assert python(code).stdout.splitlines()[-1] == "set()"


def shell(command: str, **options: object) -> "subprocess.CompletedProcess[str]":
    program = f"{sys.executable} -m pipeline"
    line = command.replace("fineclip", program)
    return subprocess.run(["bash", "-c", line], capture_output=True, text=True, cwd=ROOT, **options)  # type: ignore[call-overload,no-any-return]


@pytest.mark.parametrize("command", ["status {out} --dead", "status {out}", "annotate --help", "--help"])
def test_a_reader_that_closes_the_pipe_is_no_error(tmp_path: Path, command: str):
    source = write_files(tmp_path / "photos", {f"{number:05d}.jpg": b"no picture" for number in range(800)})
    assert run("annotate", source, tmp_path / "out", *SEARCH).code == 1
    ended = shell(f"fineclip {command.format(out=tmp_path / 'out')} | head -c 1; exit ${{PIPESTATUS[0]}}")
    assert ended.stderr == ""
    assert ended.returncode in (0, 141), "not 1, which means that too much is dead"


def test_no_place_to_write_to_is_a_sentence():
    closed = shell("fineclip --help >&-")
    assert (closed.returncode, closed.stderr) == (0, "")
    full = shell("fineclip --help > /dev/full")
    assert full.returncode == 5
    assert full.stderr == "fineclip: No space left on device: free space, then run the same command again\n"


def test_a_missing_package_is_named_with_the_extra_that_holds_it():
    code = (
        "import sys, fineclip; sys.modules['rich'] = None; sys.modules['rich.console'] = None; "
        "sys.exit(fineclip.main(['annotate', 'in', 'out']))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.returncode == 2
    assert "pip install 'fineclip-regions[pipeline]'" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_python_m_pipeline_is_the_same_command():
    ran = subprocess.run([sys.executable, "-m", "pipeline", "--help"], capture_output=True, text=True)
    assert (ran.returncode, ran.stdout) == (0, run("--help").out)


def test_packages_of_the_current_folder_are_not_taken_for_ours(photos: Path, tmp_path: Path):
    """Neither by the command nor by the worker processes it starts."""
    here = tmp_path / "project"
    for name in ("trainer", "pipeline", "schemas"):
        (here / name).mkdir(parents=True)
        (here / name / "__init__.py").write_text("raise SystemExit('the wrong package was imported')")
    command = Path(sys.executable).with_name("fineclip")
    ran = subprocess.run(
        [command, "annotate", photos, tmp_path / "out", *CHEAP, "--workers", "2"],
        cwd=here,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    assert read_markers(tmp_path / "out")[0].images.ok == 3
