"""Proposers and captioners of other packages: the very example of docs/extending.md, and packages that go wrong."""

import json
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.backends import SettingError
from pipeline.caption import captioners
from pipeline.propose import PROPOSERS, proposers
from pipeline.run.job import annotate as annotate_job
from pipeline.run.worker import WorkerSettings, load_models
from pipeline.settings import PlanSettings, RunSettings
from schemas.dataset import Dataset
from schemas.reasons import Stage
from tests.builders import annotate, configuration, digests, run, write_photos

REPOSITORY = Path(__file__).parents[2]
EXTENDING = REPOSITORY / "docs" / "extending.md"
TILES = ("--proposer", "tiles", "--propose.side", "2", "--captioner", "rule")

CAPTIONER = """
from dataclasses import dataclass
from pipeline.caption.base import CaptionerBase
from pipeline.models.licenses import Licensed
from pipeline.sample import Caption

@dataclass(frozen=True, kw_only=True)
class Config:
    {setting}: str = "a thing"
    \"\"\"What is said.\"\"\"
    batch_size: int = 4

class Poet(CaptionerBase):
    name, version, config_class = "poet", 3, Config

    def __init__(self, config, *, device):
        super().__init__(config)

    def caption(self, crops, prompts):
        return [Caption(text=f"{{self.config.words}} of {{crop.pixels.shape[1]}}", score=None) for crop in crops]

    @staticmethod
    def licenses(config):
        return (Licensed(what="poet", kind="code", license="MIT", permissive=True),)
"""


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example of the documentation, built into a wheel."""
    folder = tmp_path_factory.mktemp("example")
    blocks = re.findall(r"`([\w.]+)`:\n\n```\w+\n(.*?)```", EXTENDING.read_text(encoding="utf-8"), re.DOTALL)
    assert [name for name, _ in blocks] == ["pyproject.toml", "fineclip_tiles.py"]
    assert sum(text.count("\n") for _, text in blocks) <= 45, "it is to be short"
    for name, text in blocks:
        (folder / name).write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "pip", "wheel", "--no-index", "--no-deps", "--no-build-isolation", "-q", "."]
    subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    (built,) = folder.glob("*.whl")
    return built


Install = Callable[..., None]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of installed packages, on the path of this process and of those that it starts."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    path = os.pathsep.join([str(folder), str(REPOSITORY)])
    monkeypatch.setenv("PYTHONPATH", path)
    return folder


@pytest.fixture
def install(site: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Returns a function that installs a package of one module with one entry point."""

    def add(
        package: str, version: str = "1.0", *, kind: str = "captioners", name: str, target: str, source: str
    ) -> None:
        module = target.partition(":")[0]
        monkeypatch.delitem(sys.modules, module, raising=False)
        (site / f"{module}.py").write_text(source, encoding="utf-8")
        info = site / f"{package.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(f"[fineclip.{kind}]\n{name} = {target}\n")
        forget()

    return add


@pytest.fixture
def tiles(site: Path, wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The example is installed."""
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(site)
    monkeypatch.delitem(sys.modules, "fineclip_tiles", raising=False)
    forget()


def forget() -> None:
    """A process looks once at what is installed, which a test changes."""
    from pipeline import registry

    registry._entry_points.cache_clear()


@pytest.fixture(autouse=True)
def forgotten() -> Any:
    forget()
    yield
    forget()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_photos(tmp_path / "photos", 4)


def provenance(output: Path, kind: str) -> Any:
    return json.loads((output / "train-000000.json").read_bytes())["provenance"][kind]


# the example


@pytest.mark.usefixtures("tiles")
def test_the_documented_example_proposes_by_the_command(photos: Path, tmp_path: Path) -> None:
    annotate(photos, tmp_path / "out", flags=TILES)
    data = Dataset.open(tmp_path / "out")
    boxes = [region.box for sample in data.samples("train-000000") for region in sample.record.regions]
    assert sorted(boxes[:4]) == [(0, 0, 48, 32), (0, 32, 48, 64), (48, 0, 96, 32), (48, 32, 96, 64)]
    assert len(boxes) == 16
    made = provenance(tmp_path / "out", "proposer")
    assert made["package"] == {"name": "fineclip-tiles", "version": "1.0"}
    assert (made["name"], made["settings"]["side"], made["licenses"][0]["what"]) == ("tiles", 2, "fineclip-tiles")
    assert "package" not in provenance(tmp_path / "out", "captioner"), "ours is of this package"
    planned = json.loads((tmp_path / "out" / "_plan" / "plan.json").read_bytes())["configuration"]
    assert planned["proposer"]["package"] == made["package"]
    assert run("status", tmp_path / "out").code == 0
    assert run("doctor", tmp_path / "out").code == 0


@pytest.mark.usefixtures("tiles")
def test_its_settings_are_flags_with_help_and_ranges(photos: Path, tmp_path: Path) -> None:
    told = run("annotate", "--help", "--proposer", "tiles").out
    assert "--propose.side" in told and "Tiles along each side of an image." in told
    refused = run("annotate", photos, tmp_path / "out", *TILES[:2], "--captioner", "rule", "--propose.sides", "2")
    assert (refused.code, "did you mean --propose.side?" in refused.err) == (2, True), refused
    refused = run("annotate", photos, tmp_path / "out", *TILES, "--propose.batch-size", "0")
    assert (refused.code, "--propose.batch-size is 0" in refused.err) == (2, True), refused
    assert run("annotate", photos, tmp_path / "out", *TILES, "--permissive-only", "--max-dead", "1").code == 0


@pytest.mark.usefixtures("tiles")
def test_help_lists_it_and_imports_nothing() -> None:
    for arguments in (["annotate", "--help", "--profile", "weightless"], ["plan", "--help", "--captioner", "rule"]):
        told = "".join(run(*arguments).out.split())  # lines break at hyphens too
        assert "tiles(offineclip-tiles1.0)" in told
        assert "fineclip_tiles" not in sys.modules
    assert proposers.load("rpn").name == "rpn"
    assert "fineclip_tiles" not in sys.modules
    assert proposers.load("tiles").__module__ == "fineclip_tiles"


@pytest.mark.usefixtures("tiles")
@pytest.mark.parametrize("how", [(), ("--two-pools",), ("--engine", "ray")], ids=["beam", "two pools", "ray"])
def test_workers_of_every_engine_find_it(photos: Path, tmp_path: Path, how: tuple[str, ...]) -> None:
    cut = ("--shard-size", "2", "--max-dead", "1")
    annotate(photos, tmp_path / "one", flags=(*TILES, *cut))
    command = [sys.executable, "-m", "fineclip", "annotate", str(photos), str(tmp_path / "many"), *TILES, *cut]
    ran = subprocess.run([*command, "--workers", "2", *how], capture_output=True, text=True, cwd=tmp_path)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert digests(tmp_path / "many") == digests(tmp_path / "one")


# captioners


def poet(install: Install, *, version: str = "1.0", setting: str = "words") -> None:
    install("poets", version, name="poet", target="poets:Poet", source=CAPTIONER.format(setting=setting))


def test_a_captioner_of_another_package_sees_the_view_and_recaptions(
    install: Install, photos: Path, tmp_path: Path
) -> None:
    poet(install)
    search = ("--proposer", "selective_search", "--propose.working-side", "64")
    annotate(photos, tmp_path / "out", flags=(*search, "--captioner", "rule"))
    done = run(
        *("recaption", tmp_path / "out", "--captioner", "poet", "--as", "poem", "--caption.words", "an ode"),
        *("--caption.view", "context"),
    )
    assert done.code == 0, done
    rows = Dataset.open(tmp_path / "out", overlays=["poem"]).regions().to_pylist()
    assert {row["caption"].split(" of ")[0] for row in rows if row["caption"]} == {"an ode"}
    marker = json.loads((tmp_path / "out" / "train-000000.poem.json").read_bytes())
    assert marker["provenance"]["captioner"]["package"] == {"name": "poets", "version": "1.0"}
    assert "poet (of poets 1.0)" in " ".join(run("recaption", "--help", "--captioner", "rule").out.split())


def test_another_version_of_its_package_is_another_configuration(
    install: Install, site: Path, photos: Path, tmp_path: Path
) -> None:
    poet(install)
    flags = ("--proposer", "selective_search", "--propose.working-side", "64", "--captioner", "poet")
    annotate(photos, tmp_path / "out", flags=flags)
    (site / "poets-1.0.dist-info").rename(site / "poets-1.1.dist-info")
    metadata = site / "poets-1.1.dist-info" / "METADATA"
    metadata.write_text(metadata.read_text().replace("1.0", "1.1"))
    forget()
    refused = run("annotate", photos, tmp_path / "out", *flags)
    assert (refused.code, "captioner.package.version: '1.0' in" in refused.err) == (3, True), refused


def test_a_worker_with_another_version_says_so(install: Install, site: Path, photos: Path, tmp_path: Path) -> None:
    poet(install)
    theirs = configuration(captioner="poet", caption=captioners.load("poet").config_class())
    out = annotate_job([str(photos)], str(tmp_path / "out"), configuration=theirs, plan=PlanSettings(limit=1))
    settings = WorkerSettings(plan=out.plan, configuration=theirs, run=RunSettings(), run_id="r")
    metadata = site / "poets-1.0.dist-info" / "METADATA"
    metadata.write_text(metadata.read_text().replace("1.0", "1.2"))
    forget()
    with pytest.raises(Exception, match=r"captioner poet is of another package here \(poets 1\.2\) .*\(poets 1\.0\)"):
        load_models(settings.plan, theirs, settings.run, stages=[Stage.CAPTION])


# packages that go wrong


def test_a_name_of_two_packages_or_of_ours_names_both(install: Install, photos: Path, tmp_path: Path) -> None:
    poet(install)
    install("bards", "2.0", name="poet", target="bards:Poet", source=CAPTIONER)
    install("rules", "7", name="rule", target="rules:Rule", source="raise RuntimeError")
    with pytest.raises(SettingError, match=r"2 packages have a captioner called 'poet': (bards 2.0|poets 1.0) and "):
        captioners.load("poet")
    refused = run("annotate", photos, tmp_path / "out", "--proposer", "manual", "--captioner", "rule")
    assert refused.code == 2
    assert "2 packages have a captioner called 'rule': fineclip-regions itself and rules 7" in refused.err
    assert "Traceback" not in refused.err
    assert captioners.load("blip2").name == "blip2", "those that clash are no matter to others"
    assert captioners.names.count("poet") == captioners.names.count("rule") == 1


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("import nothing_of_that_name", "cannot be imported .ModuleNotFoundError: No module named 'nothing_of"),
        ("def f(:", "cannot be imported .SyntaxError"),
        ("raise RuntimeError('no\\nluck')", "cannot be imported .RuntimeError: no.; mend that package"),
        ("", "cannot be imported .AttributeError"),
        ("Poet = 3", "is no captioner: 3 is no class"),
        ("class Poet: name, version = 'poet', 1", "Poet has no config_class, weights, licenses, provenance, caption"),
        (
            CAPTIONER.format(setting="words").replace('"poet", 3', '"bard", 3'),
            "Poet.name is 'bard', not that of",
        ),
        (CAPTIONER.format(setting="view"), "its settings view are there for all captioners"),
        (CAPTIONER.format(setting="words").replace("batch_size: int = 4", ""), "no dataclass with a default for batch"),
    ],
)
def test_a_package_that_goes_wrong_is_a_sentence(
    install: Install, photos: Path, tmp_path: Path, source: str, message: str
) -> None:
    install("poets", name="poet", target="poets:Poet", source=source)
    refused = run("annotate", photos, tmp_path / "out", "--proposer", "manual", "--captioner", "poet")
    assert refused.code == 2
    assert re.search(rf"the captioner 'poet' of the package poets 1\.0 .*{message}", refused.err), refused
    assert "Traceback" not in refused.err
    assert run("annotate", "--help", "--captioner", "rule", "--proposer", "manual").code == 0


def test_a_package_that_is_not_there_is_an_unknown_name(photos: Path, tmp_path: Path) -> None:
    refused = run("annotate", photos, tmp_path / "out", "--proposer", "tiles", "--captioner", "rule")
    assert (refused.code, "unknown proposer 'tiles' (known: " in refused.err) == (2, True), refused
    assert proposers.names == [*PROPOSERS]


def test_an_engine_says_which_package_its_workers_lack() -> None:
    from pipeline.run.engines import sentence_of

    error = RuntimeError("The actor died\n  ModuleNotFoundError: No module named 'fineclip_tiles'\n")
    assert sentence_of(error) == (
        "No module named 'fineclip_tiles' on a worker: every machine needs the packages that this one has"
    )
