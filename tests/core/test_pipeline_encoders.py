"""Refreshes with encoders of a user's own, and with one that is trained."""

import os
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.conftest import make_jpeg, write_pictures
from tests.plain_refresh import SSL, refresh
from wtl_core.encoders import cards, whitening
from wtl_core.errors import ConfigError, InputError, QuarantineBudgetError
from wtl_core.recipe.recipe import Recipe
from wtl_core.workspace import commits, selections
from wtl_core.workspace.storage import Store


def test_near_duplicates_are_told_as_the_trained_encoder_measured_it(source: Path, tmp_path: Path) -> None:
    recipe = Recipe.model_validate({"encoder": {**SSL["encoder"], "epochs": 2}})
    last = refresh(tmp_path / "w", source, recipe=recipe)
    store = Store(str(tmp_path / "w"))
    card = cards.load_card(store, last.encoder)
    assert card is not None
    assert selections.read_receipt(store, last.selection)["near_copy_distance"] == card["near_copy_distance"] > 0.0


_NAN = """
import torch
from torch import nn
from wtl_core.encoders.preprocessing import Preprocessing

class Net(nn.Module):
    def forward(self, values):
        means = values.mean(dim=(2, 3))
        return torch.where(means > {limit}, means, torch.nan)

def build():
    return Net(), Preprocessing(16)
"""


_POOLED = """
from torch import nn
from wtl_core.encoders.preprocessing import Preprocessing

def build():
    return nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten()), Preprocessing(16)
"""


def test_a_factory_that_was_written_anew_makes_vectors_anew_without_new_data(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "edited_nets.py").write_text(_POOLED)
    monkeypatch.syspath_prepend(str(tmp_path))
    recipe = Recipe.model_validate({"encoder": {"name": "python:edited_nets:build"}})
    first = refresh(tmp_path / "w", source, recipe=recipe)
    assert refresh(tmp_path / "w", recipe=recipe) == first
    monkeypatch.delitem(sys.modules, "edited_nets")
    (tmp_path / "edited_nets.py").write_text(_POOLED + "# another version\n")
    os.utime(tmp_path / "edited_nets.py", (1, 1))
    second = refresh(tmp_path / "w", recipe=recipe)
    assert (second.number, second.encoder != first.encoder) == (2, True)
    assert second.counts.vectors == first.counts.vectors


@pytest.mark.parametrize("images", [whitening.LEAST_IMAGES, whitening.LEAST_IMAGES - 1], ids=["fitted", "too few"])
def test_a_factory_that_draws_its_weights_is_told(images: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_pictures(tmp_path / "source", count=images, side=20)
    (tmp_path / "drawn_nets.py").write_text(
        "from torch import nn\nfrom wtl_core.encoders.preprocessing import Preprocessing\n"
        "def build():\n"
        "    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()), Preprocessing(16)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    recipe = Recipe.model_validate({"encoder": {"name": "python:drawn_nets:build"}})
    with pytest.raises(ConfigError, match=r"expected the same weights each time .* seed it"):
        refresh(tmp_path / "w", source, recipe=recipe)


@pytest.mark.parametrize(("limit", "refused"), [(2.0, 18), (9.0, 20)])
def test_what_the_encoder_refuses_counts_against_the_quarantine_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: float, refused: int
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for i in range(17):
        (source / f"{i}.jpg").write_bytes(make_jpeg(i))
    (source / "copy.jpg").write_bytes(make_jpeg(0))
    for shade in (254, 255):
        Image.new("RGB", (40, 40), (shade,) * 3).save(source / f"white-{shade}.png")
    (tmp_path / f"nan_{refused}.py").write_text(_NAN.format(limit=limit))
    monkeypatch.syspath_prepend(str(tmp_path))
    first = refresh(tmp_path / "w", source)
    encoder = {"name": f"python:nan_{refused}:build"}
    for budget in (0.5, 1.0):
        recipe = Recipe.model_validate({"encoder": encoder, "ingest": {"quarantine_budget": budget}})
        if refused == 18 and budget == 1.0:
            assert refresh(tmp_path / "w", recipe=recipe).counts.quarantined == 18
            continue
        with pytest.raises(QuarantineBudgetError, match=rf"{refused} of 20 images .*bad_vector {refused}\).*mend"):
            refresh(tmp_path / "w", recipe=recipe)
        assert commits.latest(Store(str(tmp_path / "w"))) == first


@pytest.mark.parametrize(
    ("recipe", "told"),
    [
        ({"encoder": {"name": "timm:resnet18x"}}, "timm has no such network"),
        ({"encoder": {"name": "torchvision:resnet18x"}}, "no such network"),
        ({"encoder": {"name": "file:/nowhere/weights.safetensors"}}, "expected a weights file, found none"),
        ({"encoder": {"name": "ssl", "start": "file:/nowhere/weights.safetensors"}}, "expected a weights file"),
    ],
)
def test_an_encoder_that_is_not_there_is_refused_before_any_image_is_read(
    source: Path, tmp_path: Path, recipe: dict[str, Any], told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        refresh(tmp_path / "w", source, recipe=Recipe.model_validate(recipe))
    assert not [path for path in (tmp_path / "w").rglob("*") if path.is_file()]


@pytest.mark.parametrize("selection", [{"group_by": "camra"}, {"weights": [{"column": "camra"}]}])
def test_a_column_that_is_not_there_is_refused_before_an_encoder_is_trained(
    source: Path, tmp_path: Path, selection: dict[str, Any]
) -> None:
    with pytest.raises(InputError, match="column camra: expected a column of the pool"):
        refresh(tmp_path / "w", source, recipe=Recipe.model_validate({**SSL, "selection": selection}))
    assert not (tmp_path / "w" / "encoders").exists()
