"""The command line: recipes and flags to settings, whole commands to files and exit codes."""

import json
import multiprocessing
import os
import re
import runpy
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import open_clip
import pytest
import torch

import fineclip
from fineclip import SUBCOMMANDS
from tests.trainer.runs import write_data
from tests.trainer.towers import EVA, VIT
from trainer.cli.detect_options import parse_detect_evaluate, parse_detect_train
from trainer.cli.options import parse_evaluate, parse_train
from trainer.cli.segment_options import parse_segment_evaluate, parse_segment_train
from trainer.cores import default_threads
from trainer.hyperparameters import ModelSettings
from trainer.model import text_cache
from trainer.model.open import load_model, read_state
from trainer.recipes import RECIPES, TrainRecipe
from trainer.run.checkpoints import load_checkpoint

SMALL = [
    "--image-size",
    "32",
    "--crop-size",
    "16",
    "--global-batch-size",
    "6",
    "--warmup-steps",
    "2",
    "--precision",
    "fp32",
    "--workers",
    "0",
    "--threads",
    "1",
    "--device",
    "cpu",
    "--log-every",
    "1",
]


def train_main(arguments: list[str]) -> int:
    return fineclip.main(["train", *arguments])


def evaluate_main(arguments: list[str]) -> int:
    return fineclip.main(["evaluate", *arguments])


def export_main(arguments: list[str]) -> int:
    return fineclip.main(["export-model", *arguments])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_data(tmp_path_factory.mktemp("data"), val=4)


@pytest.fixture(scope="module")
def run_folder(folder: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run")
    arguments = [
        folder,
        "--model",
        VIT,
        "--recipe",
        "mini",
        "--out",
        str(out),
        "--epochs",
        "2",
        "--alpha",
        "0.5",
        *SMALL,
    ]
    assert train_main(arguments) == 0
    return out


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_s_defaults_are_the_recipe(name):
    options = parse_train(["data", "--recipe", name, "--out", "run"])
    assert options.recipe == RECIPES[name]()
    assert json.loads(json.dumps(options.recipe.plain())) == options.recipe.plain()


def test_the_paper_s_numbers():
    base, large = RECIPES["vitb16"](), RECIPES["vitl14"]()
    assert (base.order.global_batch_size, base.samples.max_regions, base.model.input_size) == (256, 20, (224, 224))
    assert (large.order.global_batch_size, large.samples.max_regions, large.model.input_size) == (80, 5, (336, 336))
    for recipe in (base, large):
        optim = recipe.optim
        assert (optim.lr, optim.weight_decay, optim.warmup_steps, optim.epochs) == (1e-5, 0.1, 1000, 10)
        assert (recipe.loss.distill_weight, recipe.loss.region_weight, recipe.loss.teacher) == (1, 1, "live")


def test_field_names_are_flags_of_their_own():
    plain = TrainRecipe().plain()
    parts = [vars(part) for part in vars(TrainRecipe()).values()]
    assert sum(map(len, parts)) == len(plain)


def test_flags_override_a_recipe():
    arguments = [
        "data",
        "--recipe",
        "vitb16",
        "--out",
        "run",
        "--image-size",
        "[224,320]",
        "--duplicate-text",
        "mask",
        "--teacher",
        "ema",
    ]
    more = [
        "--official-quirks",
        "8",
        "--train-text",
        "--max-regions",
        "null",
        "--overlay",
        "a",
        "--overlay",
        "b",
        "--filter",
        "f.jsonl",
        "--flip",
        "true",
    ]
    options = parse_train(arguments + more)
    recipe = options.recipe
    assert recipe.model.input_size == (224, 320)
    assert recipe.model.train_text
    assert recipe.samples.flip
    assert recipe.samples.max_regions is None
    assert (recipe.loss.duplicate_text, recipe.loss.teacher, recipe.loss.official_quirks) == ("mask", "ema", 8)
    assert (options.overlays, options.filters) == (("a", "b"), ("f.jsonl",))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["data", "--out", "run", "--recipe", "none"], "invalid choice"),
        (["data", "--out", "run", "--epochs", "0"], "out of range"),
        (["data", "--out", "run", "--official-quirks", "1", "--max-regions", "null"], "max-regions"),
        (["data", "--out", "run", "--log-every", "0"], "1 or more"),
        (["data"], "--out"),
    ],
)
def test_wrong_usage_exits_2(arguments, message, capsys):
    with pytest.raises(SystemExit) as exited:
        parse_train(arguments)
    assert exited.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--epochs", "x"], "--epochs is 'x', but must be a whole number\n"),
        (["--stop-after", "x"], "--stop-after is 'x', but must be a whole number\n"),
        (["--max-area-px", "x"], "--max-area-px is 'x', but must be a number\n"),
        (["--image-size", "x"], "--image-size is 'x', but must be a whole number or a list such as [1,2]\n"),
        (["--flip", "x"], "--flip is 'x', but must be true or false\n"),
        (
            ["--teacher", "frosen"],
            "--teacher is 'frosen', but must be one of live, detached, ema, frozen; did you mean",
        ),
        (["--recipe", "mnii"], "did you mean mini?"),
        (["--recipe=mnii"], "did you mean mini?"),
        (["--stop-afer", "3"], "unrecognized arguments: --stop-afer 3; did you mean --stop-after?\n"),
        (["--stop_afer", "3"], "unrecognized arguments: --stop-afer 3; did you mean --stop-after?\n"),
        (["--zzz"], "unrecognized arguments: --zzz\n"),
        (["--recipe"], "argument --recipe: expected one argument"),
    ],
)
def test_wrong_flags_of_train_are_told_in_a_sentence(arguments, message, capsys):
    with pytest.raises(SystemExit) as exited:
        parse_train(["data", "--out", "run", *arguments])
    assert exited.value.code == 2
    err = capsys.readouterr().err
    assert message in err
    assert "usage: fineclip train DATA" in err and "Parser key" not in err


@pytest.mark.parametrize(
    ("flag", "value", "told"),
    [
        ("--eval-every", "0", "give 1 or more"),
        ("--micro-batch-size", "0", "give 1 or more"),
        ("--stop-after", "0", "give 1 or more"),
        ("--threads", "0", "give 1 or more"),
        ("--workers", "-1", "give 0 or more"),
        ("--max-skipped", "-0.5", "a share from 0 to 1"),
        ("--clip-norm", "-1.0", "give more than 0"),
        ("--clip-norm", "0.0", "give more than 0"),
        ("--weight-decay", "-0.1", "give 0 or more"),
        ("--beta1", "2.0", "from 0 to below 1"),
        ("--crop-size", "0", "give 1 or more"),
        ("--image-size", "[0, 64]", "give 1 or more"),
        ("--ema-decay", "2.0", "a share from 0 to 1"),
        ("--concepts-per-step", "0", "give 1 or more"),
        ("--seed", "-1", "give 0 or more"),
    ],
)
def test_a_number_out_of_its_range_is_told_by_its_flag_before_any_work(flag, value, told, capsys):
    assert _exit_code(parse_train, ["data", "--out", "run", flag, value]) == 2
    error = capsys.readouterr().err
    assert f"error: {flag} {value}" in error and told in error


@pytest.mark.parametrize(
    ("parse", "arguments"),
    [
        (parse_evaluate, "run --task regions --data d --out o --batch-size 0"),
        (parse_evaluate, "run --task regions --data d --out o --workers -1"),
        (parse_detect_train, "--model clip --data d --out o --clip-norm -1.0"),
        (parse_detect_train, "--model clip --data d --out o --image-size 0"),
        (parse_detect_train, "--model clip --data d --out o --stop-after 0"),
        (parse_detect_evaluate, "--model run --data d --out o --max-detections 0"),
        (parse_detect_evaluate, "--model run --data d --out o --workers -1"),
        (parse_segment_train, "--model clip --data d --out o --clip-norm 0.0"),
        (parse_segment_train, "--model clip --data d --out o --crop-px 0"),
        (parse_segment_evaluate, "--model run --data d --out o --workers -1"),
    ],
)
def test_ranges_are_those_of_every_command(parse, arguments, capsys):
    assert _exit_code(parse, arguments.split()) == 2
    flag, value = arguments.split()[-2:]
    assert f"error: {flag} {value}: give" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("run --task regions --data d --out o --alfa 1", "did you mean --alpha?"),
        ("run --task zero-shot --data d --out o", "did you mean zeroshot?"),
        ("run --task regions --data d --out o --alpha x", "--alpha is 'x', but must be a number\n"),
        ("", "the following arguments are required: CHECKPOINT, --task, --data, --out\n"),
    ],
)
def test_wrong_flags_of_evaluate_are_told_in_a_sentence(arguments, message, capsys):
    assert _exit_code(evaluate_main, arguments.split()) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("run out --fromat official", "did you mean --format?"),
        ("run out --format oficial", "did you mean official?"),
        ("run", "the following arguments are required: OUT\n"),
    ],
)
def test_wrong_flags_of_export_are_told_in_a_sentence(arguments, message, capsys):
    assert _exit_code(export_main, arguments.split()) == 2
    assert message in capsys.readouterr().err


def _exit_code(command: Callable[[list[str]], int], arguments: list[str]) -> object:
    with pytest.raises(SystemExit) as exited:
        command(arguments)
    return exited.value.code


def test_required_flags_are_named_as_they_are_written(capsys):
    with pytest.raises(SystemExit):
        parse_train([])
    assert "the following arguments are required: DATA, --out\n" in capsys.readouterr().err


def test_help_speaks_to_users(capsys):
    for command in (train_main, evaluate_main, export_main):
        assert _exit_code(command, ["--help"]) == 0
        text = " ".join(capsys.readouterr().out.split())
        assert not re.search(r"\.;|Raises|state`", text)
        assert "exit codes: 0 done" in text and "5 " in text


def test_help_names_every_flag_with_its_default(capsys):
    with pytest.raises(SystemExit) as exited:
        parse_train(["--recipe", "vitl14", "--help"])
    assert exited.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    assert all("--" + name.replace("_", "-") in text for name in TrainRecipe().plain())
    assert "Pixels that images are squashed to" in text
    assert "336" in text


def test_help_and_wrong_usage_need_no_extra(folder):
    code = "import sys; sys.modules.update(torch=None, open_clip=None, timm=None, PIL=None); import fineclip; "
    code += "sys.exit(fineclip.main(sys.argv[1:]))"
    for arguments, expected in ((["train", "--help"], 0), (["evaluate", "--help"], 0), (["train", "data"], 2)):
        ran = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
        assert ran.returncode == expected, ran
    ran = subprocess.run([sys.executable, "-c", code, "train", folder, "--out", "x"], capture_output=True, text=True)
    assert ran.returncode == 2 and "pip install 'fineclip-regions[trainer]'" in ran.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ("train nowhere --out {tmp}", 2, "nowhere: no such folder"),
        ("train {data} --out {tmp} --overlay gone", 2, "gone"),
        ("train {data} --out {tmp} --eval-every 1 --eval-data nowhere", 2, "nowhere: no such folder"),
        ("train {data} --out /proc/xx", 5, "--out /proc/xx: No such file or directory: choose another --out"),
        ("evaluate gone.pt --task retrieval --data {data} --out {tmp}/x", 2, "gone.pt: no checkpoint is there"),
        ("evaluate mini --task retrieval --data nowhere --out {tmp}/x", 2, "nowhere: no such folder"),
        ("visualize fineclip-mini gone.pt --images {tmp} --out {tmp}/x.png", 2, "gone.pt: no checkpoint is there"),
        ("export-model a/b {tmp}/x", 2, "a/b: there is no such file or folder"),
    ],
)
def test_what_is_not_there_is_told_without_importing_torch(arguments, code, message, folder, tmp_path):
    python = "import sys; sys.modules.update(torch=None, open_clip=None); import fineclip; "
    python += "sys.exit(fineclip.main(sys.argv[1:]))"
    words = arguments.format(data=folder, tmp=tmp_path).split()
    ran = subprocess.run([sys.executable, "-c", python, *words], capture_output=True, text=True)
    assert ran.returncode == code and message in ran.stderr, ran
    assert list(tmp_path.iterdir()) == []


def test_help_names_no_command_that_is_not_there(capsys):
    for parse in (parse_train, parse_evaluate):
        with pytest.raises(SystemExit):
            parse(["--help"])
    named = re.findall(r"fineclip ([a-z-]+)", capsys.readouterr().out)
    assert named and set(named) <= set(SUBCOMMANDS)


def test_crops_follow_the_images_unless_they_are_told():
    for flags, expected in (
        ([], 224),
        (["--image-size", "448"], 448),
        (["--image-size", "[224,320]"], 224),
        (["--image-size", "448", "--crop-size", "336"], 336),
        (["--recipe", "vitl14"], 336),
        # CLIPSelf's own runs have large images and crops of 224.
        (["--recipe", "clipself_vitb16", "--image-size", "1024"], 224),
    ):
        assert parse_train(["data", "--out", "run", *flags]).recipe.model.crop_side == expected


def test_the_paper_s_recipes_have_the_official_area_limits():
    for name in ("vitb16", "vitl14", "clipself_vitb16", "regionclip_vitb16"):
        samples = RECIPES[name]().samples
        assert (samples.min_area_px, samples.max_area_px) == (8 * 8, 1024 * 1024)


@pytest.mark.parametrize(("processes", "workers", "threads"), [(1, 4, 12), (4, 4, 1), (8, 2, 1), (32, 1, 1)])
def test_processes_of_a_node_share_its_cores(processes, workers, threads, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(16)))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    assert parse_train(["data", "--out", "run"]).settings.workers == workers
    assert default_threads(workers) == threads


@pytest.mark.parametrize(("cores", "expected"), [(1, 1), (2, 2), (64, 4)])
def test_workers_follow_the_cores_that_may_be_used(cores, expected, monkeypatch, capsys):
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(cores)))
    assert parse_train(["data", "--out", "run"]).settings.workers == expected
    with pytest.raises(SystemExit):
        parse_train(["--help"])
    assert f"4 at most. (default: {expected})" in " ".join(capsys.readouterr().out.split())


def test_a_run_and_what_is_made_of_it(run_folder, folder, tmp_path):
    out = tmp_path / "metrics.json"
    tasks = ["--task", "regions", "retrieval", "region-retrieval", "zeroshot"]
    code = evaluate_main(
        [str(run_folder), *tasks, "--data", folder, "--out", str(out), "--workers", "0", "--split", "val"]
    )
    assert code == 0
    written = json.loads(out.read_text())
    assert written["split"] == "val"
    assert 0 <= written["regions"]["region_accuracy@1"] <= 1
    assert written["region-retrieval"]["num_regions"] == 7
    # The folder that the run exported, its checkpoint at that alpha, and an export of it are one model.
    for source in (f"local-dir:{run_folder / 'model'}", str(run_folder / "model"), str(run_folder / "last.pt")):
        again = tmp_path / "again.json"
        flags = ["--image-size", "32", "--device", "cpu"]
        assert evaluate_main([source, *tasks, "--data", folder, "--out", str(again), "--split", "val", *flags]) == 0
        assert json.loads(again.read_text())["retrieval"] == written["retrieval"]


def test_exports_average_with_the_start(run_folder, tmp_path):
    trained = load_checkpoint(run_folder / "last.pt").model
    start = load_model(ModelSettings(model=VIT, image_size=32, crop_size=16)).clip.state_dict()
    model = open_clip.create_model(f"local-dir:{run_folder / 'model'}").state_dict()
    name = "visual.conv1.weight"
    assert torch.allclose(model[name], (trained[name] + start[name]) / 2, atol=1e-6)
    assert not torch.equal(trained[name], start[name])
    assert export_main([str(run_folder), str(tmp_path / "w.pt"), "--format", "open_clip", "--alpha", "1"]) == 0
    assert torch.equal(read_state(str(tmp_path / "w.pt"))[name], trained[name])
    assert export_main([str(run_folder), str(tmp_path / "w.pt"), "--format", "official"]) == 2


def test_an_official_file_goes_in_and_out(folder, tmp_path):
    flags = ["--model", EVA, "--recipe", "clip_vitb16", "--epochs", "1", *SMALL]
    assert train_main([folder, "--out", str(tmp_path / "run"), "--pretrained", "null", *flags]) == 0
    assert export_main([str(tmp_path / "run"), str(tmp_path / "official.pt"), "--format", "official"]) == 0
    official = ["--pretrained", str(tmp_path / "official.pt")]
    assert train_main([folder, "--out", str(tmp_path / "next"), *official, *flags]) == 0
    before, after = (load_checkpoint(tmp_path / name / "last.pt") for name in ("run", "next"))
    assert before.start_fingerprint != after.start_fingerprint


def test_brackets_in_a_path_are_told_as_they_are(tmp_path, capsys):
    data, run = write_data(tmp_path / "data"), tmp_path / "run [lr=1] [" / "b]"
    size = ["--image-size", "64", "--crop-size", "32", "--global-batch-size", "16", "--epochs", "1", "--workers", "0"]
    assert train_main([data, "--recipe", "mini", "--model", VIT, "--out", str(run), "--device", "cpu", *size]) == 0
    assert f"The model is in {run}/model." in capsys.readouterr().err.replace("\n", "")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["nowhere", "--out", "{tmp}", "--recipe", "mini"], 2, "no such folder"),
        (["{data}", "--out", "{tmp}", "--recipe", "mini", "--model", "no-such"], 2, "no such model of open_clip"),
        (["{data}", "--out", "{tmp}", "--recipe", "mini", "--overlay", "blip2"], 2, "blip2"),
        (["{data}", "--out", "{run}", "--recipe", "mini", "--lr", "1.0"], 3, "lr is 1.0, where it was"),
        (["{data}", "--out", "{tmp}", "--recipe", "mini", "--device", "cuda"], 2, "no CUDA device"),
    ],
    ids=["data", "model", "overlay", "refused", "device"],
)
def test_exit_codes(arguments, code, message, folder, run_folder, tmp_path, capsys):
    if "cuda" in arguments and torch.cuda.is_available():
        arguments, code, message = ["nowhere", "--out", "{tmp}"], 2, "no such folder"
    known = {"{data}": folder, "{tmp}": str(tmp_path), "{run}": str(run_folder)}
    same = SMALL if "{run}" in arguments else ["--workers", "0"]
    extra = ["--model", VIT, "--epochs", "2", "--alpha", "0.5"] if "{run}" in arguments else []
    device = [] if "cuda" in arguments else ["--device", "cpu"]
    assert train_main([known.get(a, a) for a in arguments] + extra + same + device) == code
    assert message in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("below", [[], ["run"]])
def test_a_file_in_the_way_of_what_is_written_is_exit_code_5(below, run_folder, folder, tmp_path, capsys):
    file = tmp_path / "taken"
    file.write_text("mine")
    out = str(file.joinpath(*below))
    assert train_main([folder, "--out", out, "--recipe", "mini"]) == 5
    told = f"--out {out}: a file is in the way ({file}): choose another --out"
    assert told in capsys.readouterr().err
    assert export_main([str(run_folder), out]) == 5
    assert f"OUT {out}: a file is in the way ({file}): choose another OUT" in capsys.readouterr().err
    assert file.read_text() == "mine"


def test_a_folder_in_the_way_of_a_file_is_exit_code_5(run_folder, folder, tmp_path, capsys):
    assert evaluate_main([str(run_folder), "--task", "regions", "--data", folder, "--out", str(tmp_path)]) == 5
    assert f"--out {tmp_path}: a folder is in the way: name a file" in capsys.readouterr().err
    assert export_main([str(run_folder), str(tmp_path), "--format", "open_clip"]) == 5
    assert f"OUT {tmp_path}: a folder is in the way: name a file" in capsys.readouterr().err


def test_what_may_not_be_written_is_told_before_the_work(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert train_main(["nowhere", "--out", str(tmp_path / "run"), "--recipe", "mini"]) == 5
    assert f"--out {tmp_path}/run: permission denied: choose" in capsys.readouterr().err
    assert evaluate_main(["nowhere", "--task", "regions", "--data", "d", "--out", str(tmp_path / "m.json")]) == 5
    assert f"--out {tmp_path}/m.json: permission denied: choose" in capsys.readouterr().err


@pytest.mark.parametrize(
    "flags",
    [["--model", "no-such"], ["--overlay", "blip2"], ["--image-size", "33"], ["--eval-data", "nowhere"]],
    ids=["model", "overlay", "size", "eval data"],
)
def test_a_refused_command_leaves_no_folder(flags, folder, tmp_path):
    flags = [*flags, *(["--eval-every", "1"] if "--eval-data" in flags else [])]
    assert train_main([folder, "--out", str(tmp_path / "RUN"), "--recipe", "mini", "--device", "cpu", *flags]) == 2
    assert list(tmp_path.iterdir()) == []


def test_metrics_may_go_to_a_folder_that_is_not_there(run_folder, folder, tmp_path):
    out = tmp_path / "new" / "metrics.json"
    flags = ["--task", "retrieval", "--data", folder, "--split", "val", "--workers", "0", "--device", "cpu"]
    assert evaluate_main([str(run_folder), *flags, "--out", str(out)]) == 0
    assert json.loads(out.read_text())["split"] == "val"


@pytest.mark.parametrize("name", ["mk.py", "MODEL:TAG", "runs/a", "no-such"])
def test_evaluate_speaks_of_what_was_given(name, folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("mk.py").write_text("print()")
    assert evaluate_main([name, "--task", "retrieval", "--data", folder, "--out", "x.json", "--device", "cpu"]) == 2
    err = " ".join(capsys.readouterr().err.split())
    assert name.partition(":")[0] in err and "--model" not in err and "--pretrained" not in err


def test_evaluate_says_that_a_file_is_no_checkpoint(folder, tmp_path, capsys):
    (tmp_path / "mk.py").write_text("print()")
    for name, message in (("mk.py", "is no checkpoint (.pt)"), ("gone/run", "there is no such file or folder")):
        flags = ["--task", "retrieval", "--data", folder, "--out", str(tmp_path / "x.json"), "--device", "cpu"]
        assert evaluate_main([str(tmp_path / name), *flags]) == 2
        assert f"CHECKPOINT {tmp_path / name}: {message}" in " ".join(capsys.readouterr().err.split())


def test_evaluate_names_the_clip_of_a_detector_s_run(folder, tmp_path, capsys):
    (tmp_path / "run" / "clip").mkdir(parents=True)
    (tmp_path / "run" / "clip" / "open_clip_config.json").write_text("{}")
    flags = ["--task", "retrieval", "--data", folder, "--out", str(tmp_path / "x.json")]
    assert evaluate_main([str(tmp_path / "run"), *flags]) == 2
    assert f"the CLIP that it stands on is {tmp_path}/run/clip" in " ".join(capsys.readouterr().err.split())


def test_evaluate_names_what_it_cannot_load(folder, tmp_path, capsys):
    flags = ["--task", "retrieval", "--data", folder, "--out", str(tmp_path / "x.json")]
    for source, message in ((str(tmp_path), "no checkpoint is there"), ("no-such:tag", "no such model of open_clip")):
        assert evaluate_main([source, *flags]) == 2
        assert message in " ".join(capsys.readouterr().err.split())
    assert evaluate_main([str(tmp_path / "best.pt"), *flags]) == 2
    assert "best.pt is kept by runs with --eval-every alone" in " ".join(capsys.readouterr().err.split())
    templates = tmp_path / "templates.txt"
    templates.write_text("a photo\n")
    assert evaluate_main([VIT, *flags, "--image-size", "32", "--templates", str(templates)]) == 2
    assert "where the class name goes" in " ".join(capsys.readouterr().err.split())


def test_evaluate_options():
    options = parse_evaluate(
        ["run", "--task", "regions", "zeroshot", "--data", "d", "--out", "o", "--region-feature", "crop"]
    )
    assert options.tasks == ("regions", "zeroshot")
    assert options.region_features == ("crop",)


def _as_launched(rank: int, port: int, arguments: list[str]) -> None:
    """Run the module as a launcher does: its place among the processes is in the environment."""
    torch.set_num_threads(1)
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in place.items()}, MASTER_ADDR="127.0.0.1")
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    sys.argv = ["trainer", *arguments]
    runpy.run_module("trainer", run_name="__main__")


def test_two_launched_processes_train_together(folder, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = ["train", folder, "--recipe", "mini", "--model", VIT, "--out", str(tmp_path / "run"), "--epochs", "1"]
    context = multiprocessing.get_context("fork")
    launched = [context.Process(target=_as_launched, args=(rank, port, [*arguments, *SMALL])) for rank in range(2)]
    for process in launched:
        process.start()
    for process in launched:
        process.join()
    assert [process.exitcode for process in launched] == [0, 0]
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 3
    assert (tmp_path / "run" / "skipped-1.jsonl").exists()


def _in_a_group(arguments: list[str]) -> None:
    os.setpgrp()
    torch.set_num_threads(1)
    sys.exit(train_main(arguments))


@pytest.mark.parametrize(
    "signals",
    [[signal.SIGINT], [signal.SIGTERM], [signal.SIGTERM, signal.SIGTERM]],
    ids=["Ctrl-C", "a scheduler", "a scheduler, and torchrun that passes it on"],
)
def test_an_interrupt_finishes_the_step_and_the_same_command_goes_on(folder, tmp_path, capfd, signals):
    out = tmp_path / "run"
    arguments = [folder, "--recipe", "mini", "--model", VIT, "--out", str(out), "--epochs", "300", *SMALL]
    arguments += ["--workers", "1"]
    process = multiprocessing.get_context("fork").Process(target=_in_a_group, args=(arguments,))
    process.start()
    while process.is_alive() and not ((out / "metrics.jsonl").exists() and (out / "metrics.jsonl").stat().st_size):
        time.sleep(0.01)
    for number in signals:
        os.killpg(process.pid, number)  # as a terminal does: to the workers too
        time.sleep(0.02)
    process.join()
    assert process.exitcode == 4
    assert "Traceback" not in capfd.readouterr().err
    done = load_checkpoint(out / "last.pt").step
    assert 0 < done < 900
    assert train_main([*arguments, "--stop-after", str(done + 1)]) == 0
    assert "the command without --stop-after goes on" in " ".join(capfd.readouterr().err.split())
    assert load_checkpoint(out / "last.pt").step == done + 1


def test_a_signal_while_texts_are_embedded_is_an_interruption_too(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(text_cache, "SEGMENT_TEXTS", 2)
    add, added = text_cache.TextCache.add, []

    def add_and_signal(*arguments) -> None:
        add(*arguments)
        added.append(1)
        os.kill(os.getpid(), signal.SIGTERM)

    arguments = [folder, "--recipe", "vitb16", "--pretrained", "null", "--model", VIT, "--out", str(tmp_path), *SMALL]
    with monkeypatch.context() as patched:
        patched.setattr(text_cache.TextCache, "add", add_and_signal)
        assert train_main(arguments) == 4
    assert added == [1]
    assert "interrupted before the first step; the same command goes on" in " ".join(capsys.readouterr().err.split())
    assert train_main([*arguments, "--stop-after", "1"]) == 0


def test_the_module_is_the_command(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["trainer", "train", "nowhere", "--out", "run", "--epochs", "0"])
    with pytest.raises(SystemExit) as exited:
        runpy.run_module("trainer", run_name="__main__")
    assert exited.value.code == 2
    assert "out of range" in capsys.readouterr().err


def test_the_documented_launch_line_is_not_misled_by_the_folder_it_is_given_in(tmp_path):
    """`torchrun $(which fineclip) train` finds our packages where others of their names lie."""
    write_data(_made(tmp_path / "data"), (6, 4))
    for name in ("trainer", "schemas"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('the wrong module was imported')")
    arguments = "data --recipe mini --image-size 32 --crop-size 16 --global-batch-size 4 --stop-after 1 --workers 0"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command = Path(sys.executable).with_name("fineclip")
    ran = subprocess.run(
        [*torchrun, command, "train", *arguments.split(), "--device", "cpu", "--out", "run"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(fineclip.__file__).parent), "GLOO_SOCKET_IFNAME": "lo"},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    assert load_checkpoint(tmp_path / "run" / "last.pt").step == 1
    assert (tmp_path / "run" / "skipped-1.jsonl").exists()


def _made(path: Path) -> Path:
    path.mkdir()
    return path
