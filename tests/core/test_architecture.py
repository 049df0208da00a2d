"""What the structure promises: who imports whom, and what stays light."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def _loaded_by(module: str) -> set[str]:
    code = f"import sys, {module}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


@pytest.mark.parametrize(
    "module",
    [
        "flows.cli.main",
        "wtl_core.refresh.planning",
        "wtl_core.pool.live_pool",
        "wtl_core.labelling.cut",
        "wtl_core.recipe.recipe",
    ],
)
def test_what_plans_imports_neither_torch_nor_prefect(module: str) -> None:
    assert not {"torch", "prefect", "lancedb", "timm"} & _loaded_by(module)


@pytest.mark.parametrize(
    "module",
    [
        "wtl_core.embedding.embedder",
        "wtl_core.training.training",
        "wtl_core.selection.ranking",
        "wtl_core.selection.ladder",
    ],
)
def test_numeric_rooms_run_where_storage_libraries_are_missing(module: str) -> None:
    blocked = ("prefect", "lancedb", "polars", "pyarrow", "s3fs")
    code = f"import sys; sys.modules.update(dict.fromkeys({blocked!r})); import {module}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_core_knows_no_orchestrator() -> None:
    for file in (ROOT / "wtl_core").rglob("*.py"):
        text = file.read_text()
        assert "import prefect" not in text, file
        assert "from prefect" not in text, file
        assert "from tasks" not in text, file
        assert "from flows" not in text, file


def test_no_package_holds_code_in_its_init() -> None:
    for package in ("flows", "tasks", "wtl_core"):
        for file in (ROOT / package).rglob("__init__.py"):
            assert file.read_text() == "", file
