"""Compiled networks: the recipe decides, the fingerprint says so, and a machine that cannot is told so."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tests.plain_refresh import refresh
from tests.small_embedding import gather, items, make_encoder
from tests.small_encoders import write_weights
from wtl_core.embedding import vectors
from wtl_core.embedding.embedder import embed
from wtl_core.encoders import compiled
from wtl_core.encoders.encoder import Encoder
from wtl_core.encoders.fingerprints import compiled_fingerprint
from wtl_core.errors import ConfigError
from wtl_core.recipe.recipe import Recipe, build_recipe
from wtl_core.workspace.storage import Store


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own compiler meets torch's own old parts
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch compiles for a processor with g++")
def test_a_compiled_twin_gives_the_same_vectors_to_low_bits_under_its_own_fingerprint() -> None:
    torch.manual_seed(0)
    plain = make_encoder(module=nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()))
    # g++ reads torch's headers once, and not a second time to try vector instructions: a third of the time
    with torch._inductor.config.patch({"cpp_cache_precompile_headers": False, "cpp.vec_isa_ok": False}):
        twin = compiled.compiled(plain)
    assert twin.fingerprint == compiled_fingerprint(plain.fingerprint) != plain.fingerprint
    images = items(40)
    (ids, ours, _), (_, expected, _) = gather(list(embed(twin, images))), gather(list(embed(plain, images)))
    assert ids == [name for name, _ in images]
    assert np.abs(ours.astype(np.float32) - expected.astype(np.float32)).max() < 2e-3
    again = gather(list(embed(twin, images[::-1])))[1][::-1]
    assert np.array_equal(ours, again)


class Branching(nn.Module):
    """Decides by a value, which torch cannot compile as a whole."""

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        features = values.mean(dim=(2, 3))
        return features + 1 if float(features.sum()) > 0 else features - 1


def test_a_network_that_cannot_be_compiled_as_a_whole_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"expected that torch can compile t for cpu.*set it to false"):
        compiled.compiled(make_encoder(module=Branching()))


def test_only_networks_given_by_name_are_compiled() -> None:
    with pytest.raises(ConfigError, match="expected a network given by name, found 'auto'"):
        build_recipe({"encoder": {"compile": True}}, name="r.toml")


def recipe(weights: Path, *, is_compiled: bool) -> Recipe:
    return Recipe.model_validate({"encoder": {"name": f"file:{weights}", "compile": is_compiled}})


def test_a_machine_without_a_gpu_is_told_before_anything_is_embedded(pictures: Path, tmp_path: Path) -> None:
    write_weights(tmp_path / "weights.safetensors", 1)
    with pytest.raises(ConfigError, match=r"expected a CUDA GPU and a C compiler, found the device cpu"):
        refresh(tmp_path / "w", pictures, recipe=recipe(tmp_path / "weights.safetensors", is_compiled=True))
    assert vectors.fingerprints(Store(str(tmp_path / "w"))) == set()


def test_compiled_and_plain_vectors_lie_in_tables_of_their_own(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compilation itself is left out here: the network stays as it is under the twin's fingerprint."""
    loaded: list[str] = []

    def twin_of(encoder: Encoder) -> Encoder:
        loaded.append(encoder.fingerprint)
        return dataclasses.replace(encoder, fingerprint=compiled_fingerprint(encoder.fingerprint))

    monkeypatch.setattr(compiled, "check_can_compile", lambda device: None)
    monkeypatch.setattr(compiled, "compiled", twin_of)
    weights = tmp_path / "weights.safetensors"
    digest = write_weights(weights, 1)
    first = refresh(tmp_path / "w", pictures, recipe=recipe(weights, is_compiled=True))
    assert first.encoder == compiled_fingerprint(digest)
    assert loaded == [digest]
    assert refresh(tmp_path / "w", recipe=None) == first
    second = refresh(tmp_path / "w", recipe=recipe(weights, is_compiled=False))
    assert second.encoder == digest
    assert vectors.fingerprints(Store(str(tmp_path / "w"))) == {digest, compiled_fingerprint(digest)}
