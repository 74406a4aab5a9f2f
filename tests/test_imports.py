"""Who may import whom: `schemas` neither side nor their heavy packages, `pipeline` and `trainer` never each other."""

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


def imported(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Yield the top-level package and line of each import, at any depth of the module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name.split(".")[0], node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.split(".")[0], node.lineno
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            name = node.args[0] if node.args else None
            if isinstance(name, ast.Constant) and isinstance(name.value, str):
                yield name.value.split(".")[0], node.lineno


def test_the_packages_are_looked_at():
    assert {"schemas", "pipeline"} <= set(PACKAGES)
    assert all(any((ROOT / name).rglob("*.py")) for name in PACKAGES)


@pytest.mark.parametrize(
    "source",
    ["import torch.nn", "from torch import nn", "def f():\n    import torch as t", "import_module('torch.nn')"],
)
def test_an_import_is_seen_wherever_it_stands(source):
    assert {name for name, _ in imported(ast.parse(source))} == {"torch"}


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_import_only_what_they_may(package):
    broken = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in sorted((ROOT / package).rglob("*.py"))
        for name, line in imported(ast.parse(path.read_text(encoding="utf-8"), filename=str(path)))
        if name in FORBIDDEN[package]
    ]
    assert broken == []


def test_reading_shards_loads_neither_side():
    code = (
        "import sys, schemas.dataset; print(sorted({'pipeline', 'trainer', 'apache_beam', 'torch'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert ran.stdout.strip() == "[]", ran.stderr
