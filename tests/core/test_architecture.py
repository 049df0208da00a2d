"""What the structure promises: who imports whom, and what stays light."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PLANNING = (
    "flows.cli.main",
    "wtl_core.refresh.planning",
    "wtl_core.pool.live_pool",
    "wtl_core.labelling.cut",
    "wtl_core.recipe.recipe",
)
NUMERIC = (
    "wtl_core.embedding.embedder",
    "wtl_core.training.training",
    "wtl_core.selection.ranking",
    "wtl_core.selection.ladder",
)
STORAGE_LIBRARIES = ("prefect", "lancedb", "polars", "pyarrow", "s3fs")


@pytest.fixture(scope="module")
def loaded_by_planning() -> dict[str, list[str]]:
    """The packages that a fresh interpreter holds after each import of `PLANNING`, one after the other."""
    code = f"""
import importlib, json, sys
held = {{}}
for module in {PLANNING!r}:
    importlib.import_module(module)
    held[module] = sorted({{name.partition(".")[0] for name in sys.modules}})
print(json.dumps(held))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    held: dict[str, list[str]] = json.loads(done.stdout)
    return held


@pytest.mark.parametrize("module", PLANNING)
def test_what_plans_imports_neither_torch_nor_prefect(loaded_by_planning: dict[str, list[str]], module: str) -> None:
    assert not {"torch", "prefect", "lancedb", "timm"} & set(loaded_by_planning[module])


@pytest.fixture(scope="module")
def errors_of_numeric_rooms() -> dict[str, str]:
    """What each import of `NUMERIC` raises in one interpreter where the storage libraries cannot be imported."""
    code = f"""
import importlib, json, sys, traceback
sys.modules.update(dict.fromkeys({STORAGE_LIBRARIES!r}))
errors = {{}}
for module in {NUMERIC!r}:
    try:
        importlib.import_module(module)
    except Exception:
        errors[module] = traceback.format_exc()
print(json.dumps(errors))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    errors: dict[str, str] = json.loads(done.stdout)
    return errors


@pytest.mark.parametrize("module", NUMERIC)
def test_numeric_rooms_run_where_storage_libraries_are_missing(
    errors_of_numeric_rooms: dict[str, str], module: str
) -> None:
    assert module not in errors_of_numeric_rooms, errors_of_numeric_rooms[module]


def test_imports_follow_the_contracts() -> None:
    """Layers, floors, no circle, no orchestrator in the core: `tool.importlinter` in pyproject.toml says which.

    In a process of its own: import-linter switches off every logger that is there when it is called.
    """
    code = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_package_holds_code_in_its_init() -> None:
    for package in ("flows", "tasks", "wtl_core"):
        for file in (ROOT / package).rglob("__init__.py"):
            assert file.read_text() == "", file
