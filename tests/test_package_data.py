"""An installation has every file that the packages read: setup.py names them, since an editable one would not show."""

import ast
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def package_data() -> dict[str, list[str]]:
    """Return what setup.py says of files beside the modules."""
    calls = [node for node in ast.walk(ast.parse((ROOT / "setup.py").read_text())) if isinstance(node, ast.keyword)]
    return ast.literal_eval(next(node.value for node in calls if node.arg == "package_data"))


@pytest.mark.parametrize("package", ["schemas", "pipeline", "trainer"])
def test_every_file_beside_the_modules_is_installed(package):
    folder = ROOT / package
    files = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    files = [path for path in files if path.suffix not in (".py", ".pyc")]
    patterns = package_data()[package]
    assert files
    assert [str(path) for path in files if not any(fnmatch(str(path), pattern) for pattern in patterns)] == []
    assert [pattern for pattern in patterns if not any(fnmatch(str(path), pattern) for path in files)] == []
