"""Settings of the whole process are what they were after we were imported and used: a notebook keeps its own."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tests.small_embedding import make_encoder
from tests.small_encoders import FACTORY
from wtl_core.encoders.compiled import compiled
from wtl_core.encoders.encoder import Encoder
from wtl_core.encoders.resolve import resolve
from wtl_core.errors import ConfigError
from wtl_core.selection.neighbours import full_precision_sums
from wtl_core.workspace.storage import Store

IMPORT_ALL = """
import importlib, pkgutil, sys
import torch, torch._dynamo

def settings():
    return (
        list(sys.path), torch._dynamo.config.recompile_limit, torch.get_default_dtype(), torch.get_num_threads(),
        torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction, torch.is_grad_enabled(),
        torch.are_deterministic_algorithms_enabled(), torch.initial_seed(), torch.get_rng_state().tolist(),
    )

torch.manual_seed(7)
before = settings()
import wtl_core
for module in pkgutil.walk_packages(wtl_core.__path__, "wtl_core."):
    importlib.import_module(module.name)
print(settings() == before)
"""


def test_importing_every_module_changes_no_setting() -> None:
    done = subprocess.run([sys.executable, "-c", IMPORT_ALL], capture_output=True, text=True)
    assert done.stdout == "True\n", done.stderr


@pytest.fixture
def compiled_plainly(monkeypatch: pytest.MonkeyPatch) -> Callable[[nn.Module], Encoder]:
    """Compiles a small network by torch's tracer alone, without generated code."""
    compiler = torch.compile

    def traced(network: nn.Module, *, dynamic: bool, fullgraph: bool, **_: object) -> object:
        return compiler(network, dynamic=dynamic, fullgraph=fullgraph, backend="eager")

    monkeypatch.setattr(torch, "compile", traced)
    return lambda network: compiled(make_encoder(module=network))


def test_more_shapes_than_torch_allows_are_compiled_and_its_limit_stays(
    compiled_plainly: Callable[[nn.Module], Encoder],
) -> None:
    twin = compiled_plainly(nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten()))
    side, before = twin.side_px, torch._dynamo.config.recompile_limit
    for rows in (*range(2, before + 4), 2):
        images = torch.zeros(rows, 3, side, side, dtype=torch.uint8)
        assert twin.features(images).shape == (rows, 12)
        assert torch._dynamo.config.recompile_limit == before


def test_a_failed_compilation_leaves_the_limit_too(compiled_plainly: Callable[[nn.Module], Encoder]) -> None:
    class Branching(nn.Module):
        def forward(self, values: torch.Tensor) -> torch.Tensor:
            return values.flatten(1) if float(values.sum()) > 0 else -values.flatten(1)

    before = torch._dynamo.config.recompile_limit
    with pytest.raises(ConfigError, match="expected that torch can compile"):
        compiled_plainly(Branching())
    assert torch._dynamo.config.recompile_limit == before


@pytest.mark.parametrize("setting", [(True, True), (False, True), (False, False)])
def test_sums_in_full_precision_end_with_the_product(setting: tuple[bool, bool]) -> None:
    matmul = torch.backends.cuda.matmul

    def found() -> tuple[bool, bool]:
        return (
            matmul.allow_bf16_reduced_precision_reduction,
            matmul.allow_bf16_reduced_precision_reduction_split_k,
        )

    was = found()
    matmul.allow_bf16_reduced_precision_reduction = setting
    try:
        with full_precision_sums():
            assert found() == (False, True)
        assert found() == setting
        with pytest.raises(RuntimeError, match="out of memory"), full_precision_sums():
            raise RuntimeError("out of memory")
        assert found() == setting
    finally:
        matmul.allow_bf16_reduced_precision_reduction = was


@pytest.mark.parametrize("factory", ["kept", "broken"])
def test_the_current_folder_is_on_the_path_only_while_a_factory_is_loaded(
    factory: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / f"here_{factory}.py").write_text(FACTORY)
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    store, name = Store(str(tmp_path / "w")), f"python:here_{factory}:{factory}"
    if factory == "kept":
        encoder = resolve(name, store, device="cpu")
        assert np.isfinite(encoder.encode(torch.zeros(1, 3, 32, 32, dtype=torch.uint8)).numpy()).all()
    else:
        with pytest.raises(ConfigError, match="it raised FileNotFoundError"):
            resolve(name, store, device="cpu")
    assert sys.path == before
