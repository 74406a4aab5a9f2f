"""Looking at a data set needs the base and `[viewer]` alone: no torch, no Beam, nothing else that `[pipeline]` brings.

The commands run where everything else cannot be imported; `make test-envs` would install it apart.
"""

import ast
import importlib.metadata
import json
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.builders import CHEAP, run, write_photos

ROOT = Path(__file__).parents[3]
RUN = """
import json, sys

allowed = {*json.loads(sys.argv[1]), *sys.stdlib_module_names, "fineclip", "pipeline", "schemas"}

class Nothing:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in allowed and not top.startswith("_"):  # parts of others
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Nothing())
import fineclip
sys.exit(fineclip.main(sys.argv[2:]))
"""


def installed_by(requirements):
    """Return the names of all distributions that a plain installation of `requirements` has."""
    found, todo = set(), [Requirement(text) for text in requirements]
    while todo:
        wanted = todo.pop()
        extras = ["", *wanted.extras]
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            continue
        name = wanted.name.lower().replace("_", "-")
        if (name, *extras) in found:
            continue
        found.add((name, *extras))
        for text in importlib.metadata.requires(wanted.name) or []:
            needed = Requirement(text)
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in extras):
                needed.marker = None
                todo.append(needed)
    return {name for name, *_ in found}


def modules_of(*parts):
    """Return what can be imported where only these lists of `setup.py` are installed."""
    lists = {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in ast.parse((ROOT / "setup.py").read_text()).body
        if isinstance(node, ast.Assign) and node.targets[0].id in parts
    }
    plain = installed_by([text for part in parts for text in lists[part]])
    assert {"fsspec", "aiohttp", "pyarrow"} <= plain and not {"torch", "apache-beam", "scipy"} & plain
    owners = importlib.metadata.packages_distributions().items()
    return [name for name, dists in owners if any(dist.lower().replace("_", "-") in plain for dist in dists)]


@pytest.fixture(scope="module")
def modules():
    """What can be imported in an installation of the base and `[viewer]`."""
    return modules_of("SCHEMAS", "COMMAND", "VIEWER")


def command(modules, *arguments):
    return [sys.executable, "-c", RUN, json.dumps(modules), *map(str, arguments)]


def test_doctor_and_sheet_run(url, modules, tmp_path):
    for arguments in (("doctor", url), ("sheet", url, tmp_path / "sheet.html")):
        ran = subprocess.run(command(modules, *arguments), capture_output=True, text=True, check=False, cwd=ROOT)
        assert ran.returncode == 0, ran.stderr
    assert (tmp_path / "sheet.html").stat().st_size > 1000


def test_the_viewer_runs(url, modules):
    with subprocess.Popen(command(modules, "view", url), stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        address = process.stdout.readline().strip()
        with urllib.request.urlopen(f"{address}api/crops", timeout=30) as answer:
            assert len(json.load(answer)["items"]) == 6
        process.send_signal(signal.SIGINT)
        process.wait(timeout=30)
    assert process.returncode == 0


def test_the_base_alone_counts_and_checks(tmp_path):
    assert run("annotate", write_photos(tmp_path / "photos", 2), tmp_path / "out", *CHEAP).code == 0
    for name, told in (("status", "complete"), ("doctor", "healthy")):
        asked = command(modules_of("SCHEMAS", "COMMAND"), name, tmp_path / "out")
        ran = subprocess.run(asked, capture_output=True, text=True, check=False, cwd=ROOT)
        assert ran.returncode == 0, ran.stderr
        assert told in ran.stdout


def test_what_is_missing_is_noticed(modules):
    ran = subprocess.run(command(modules, "annotate", "x", "y"), capture_output=True, text=True, check=False, cwd=ROOT)
    assert ran.returncode == 2 and "is missing; install it with" in ran.stderr
