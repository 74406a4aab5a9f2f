"""The notebook of `examples/` in a real kernel, with today's pandas and without any."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.envs
NOTEBOOK = Path(__file__).parents[2] / "examples" / "quickstart.ipynb"


@pytest.fixture(scope="module")
def kernel(environment: Callable[..., Path]) -> Path:
    """An environment with a kernel; the tests add to it, in their order."""
    return environment("[pipeline]", "nbclient", "ipykernel")


@pytest.mark.parametrize("pandas", [None, "pandas>=3"])
@pytest.mark.timeout(900)
def test_the_quick_start_runs_in_a_kernel(kernel: Path, tmp_path: Path, pandas: str | None) -> None:
    if pandas is not None:
        subprocess.run([kernel / "python", "-m", "pip", "install", "--quiet", pandas], check=True)
    has_pandas = subprocess.run([kernel / "python", "-c", "import pandas"], capture_output=True).returncode == 0
    assert has_pandas == (pandas is not None)
    shutil.copy(NOTEBOOK, tmp_path)
    code = (
        "import nbformat, nbclient; book = nbformat.read('quickstart.ipynb', 4); "
        "nbclient.NotebookClient(book, timeout=600, kernel_name='python3').execute(); nbformat.write(book, 'ran.ipynb')"
    )
    ran = subprocess.run([kernel / "python", "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    book = json.loads((tmp_path / "ran.ipynb").read_text())
    outputs = [output for cell in book["cells"] for output in cell.get("outputs", [])]
    assert not any(output["output_type"] == "error" for output in outputs)
    assert any("image/png" in output.get("data", {}) for output in outputs)
    shown = json.dumps(book["cells"][1]["outputs"])
    assert "images" in shown and "regions" in shown, "the counts stand in the cell"
    assert "<script" not in shown, "nothing writes scripts into the cell"
