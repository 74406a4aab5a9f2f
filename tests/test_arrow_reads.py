"""Arrow reads tables from memory or from a path, not through a file object of Python.

Its reading threads still hold such an object when `read_table` has returned. Where the command ends in that moment, the
thread asks for the interpreter that is going, and the process is aborted (exit code 134) with its work done: about once
in thirty times for a small table read last.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PATHS = {
    "pipeline/audit/measures.py": "path",
    "pipeline/audit/layout.py": "measures_file(out, shard)",
    "trainer/study/scores.py": "path",
    "pipeline/run/finalise.py": "file",  # tables over 8 MiB by columns, long before the command ends
}
"""What else may be read, by file."""


def through_python(tree: ast.AST, *allowed: str) -> Iterator[tuple[str, int]]:
    """Yield what `pq.read_table` is given, and where, unless it is in memory or allowed."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "pq.read_table":
            source = ast.unparse(node.args[0])
            if not source.startswith("pa.BufferReader(") and source not in allowed:
                yield source, node.lineno


@pytest.mark.parametrize("source", ["io.BytesIO(content)", "file"])
def test_a_file_object_is_seen(source):
    assert list(through_python(ast.parse(f"rows = pq.read_table({source}, columns=[])"))) == [(source, 1)]


def test_memory_and_what_is_allowed_may_be_read():
    assert not list(through_python(ast.parse("pq.read_table(pa.BufferReader(b))\npq.read_table(path)"), "path"))


@pytest.mark.parametrize("folder", ["schemas", "pipeline", "trainer"])
def test_no_table_is_read_through_a_file_object(folder):
    found = [
        f"{name}:{line} reads {source}"
        for path in sorted((ROOT / folder).rglob("*.py"))
        for name in [path.relative_to(ROOT).as_posix()]
        for source, line in through_python(ast.parse(path.read_text(encoding="utf-8")), PATHS.get(name, ""))
    ]
    assert not found, "give pa.BufferReader of the bytes, or a path"
