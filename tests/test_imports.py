"""Who may import whom: `schemas` neither side nor their heavy packages, `pipeline` and `trainer` never each other,
the steps of the flow never those that drive it, and nothing the minis."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FORBIDDEN = {
    "schemas": {"pipeline", "trainer", "apache_beam", "torch"},
    "pipeline": {"trainer"},
    "trainer": {"pipeline"},
}
PACKAGES = [name for name in FORBIDDEN if (ROOT / name).is_dir()]
STEPS = ("read", "propose", "caption", "write")
UPWARD = {f"pipeline/{step}": {"pipeline.run", "pipeline.cli"} for step in STEPS}
"""What a step of the flow never imports: those that drive it."""
MINIS_OPEN_TO = {"minis", "cli"}
"""Folders of `pipeline` that may import the minis, which nothing real depends on."""


def imported(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Yield the module and line of each import, at any depth of the file; of `from a import b` both a and a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module, node.lineno
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            name = node.args[0] if node.args else None
            if isinstance(name, ast.Constant) and isinstance(name.value, str):
                yield name.value, node.lineno


def broken(folder: str, forbidden: set[str]) -> list[str]:
    """Return the imports of `forbidden` modules, and of what is in them, in a folder's files."""
    return [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in sorted((ROOT / folder).rglob("*.py"))
        for name, line in imported(ast.parse(path.read_text(encoding="utf-8"), filename=str(path)))
        if any(name == module or name.startswith(f"{module}.") for module in forbidden)
    ]


def test_the_packages_are_looked_at():
    assert {"schemas", "pipeline"} <= set(PACKAGES)
    assert all(any((ROOT / name).rglob("*.py")) for name in PACKAGES)
    assert all(any((ROOT / name).rglob("*.py")) for name in UPWARD)


@pytest.mark.parametrize(
    "source",
    ["import torch.nn", "from torch import nn", "def f():\n    import torch.nn as t", "import_module('torch.nn')"],
)
def test_an_import_is_seen_wherever_it_stands(source):
    assert "torch.nn" in {name for name, _ in imported(ast.parse(source))}


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_import_only_what_they_may(package):
    assert broken(package, FORBIDDEN[package]) == []


@pytest.mark.parametrize("folder", UPWARD)
def test_a_step_imports_none_of_those_that_drive_it(folder):
    assert broken(folder, UPWARD[folder]) == []


def test_the_store_imports_no_other_folder_of_the_pipeline():
    others = {f"pipeline.{path.name}" for path in (ROOT / "pipeline").iterdir() if path.is_dir()} - {"pipeline.store"}
    assert broken("pipeline/store", others) == []


def test_nothing_real_imports_the_minis():
    folders = [path.name for path in (ROOT / "pipeline").iterdir() if path.is_dir() and path.name not in MINIS_OPEN_TO]
    assert "propose" in folders
    assert [line for folder in folders for line in broken(f"pipeline/{folder}", {"pipeline.minis"})] == []


def test_reading_shards_loads_neither_side():
    code = (
        "import sys, schemas.dataset; print(sorted({'pipeline', 'trainer', 'apache_beam', 'torch'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert ran.stdout.strip() == "[]", ran.stderr
