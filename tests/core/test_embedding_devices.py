"""Several devices at one chunk. Here they are the processor under several names: what is tested is who does what."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.plain_refresh import files
from tests.small_encoders import write_weights
from wtl_core import pipeline
from wtl_core.embedding import embedder, vectors
from wtl_core.encoders.encoder import Encoder
from wtl_core.machine import Machine
from wtl_core.recipe.recipe import Recipe
from wtl_core.workspace.commits import Commit
from wtl_core.workspace.storage import Store


def refresh(root: Path, source: Path, weights: Path, devices: int, part_images: int = 16) -> Commit:
    recipe = Recipe.model_validate({"encoder": {"name": f"file:{weights}"}})
    machine = Machine(workers=2, devices=devices, embedding_part_images=part_images)
    return pipeline.refresh_workspace(Store(str(root)), [str(source)], recipe, machine)


def test_each_device_embeds_its_share_side_by_side_and_no_vector_changes(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = tmp_path / "weights.safetensors"
    digest = write_weights(weights, 1)
    alone = refresh(tmp_path / "alone", source, weights, 1)
    real, used, both = embedder.embed, [], threading.Barrier(2)

    def noting(encoder: Encoder, images: object, **named: object) -> object:
        used.append(str(encoder.device))
        both.wait(timeout=60)  # passes only if two devices are at work at once
        return real(encoder, images, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(embedder, "embed", noting)
    together = refresh(tmp_path / "together", source, weights, 2)
    assert sorted(used) == ["cpu:0", "cpu:0", "cpu:1", "cpu:1"]  # two chunks of twice 16 images
    stores = [Store(str(tmp_path / name)) for name in ("alone", "together")]
    ids = sorted(vectors.existing_ids(stores[0], digest))
    assert len(ids) == together.counts.vectors == alone.counts.vectors == 64
    assert (vectors.load(stores[0], digest, ids) == vectors.load(stores[1], digest, ids)).all()


def test_more_devices_than_images_are_no_harm(source: Path, tmp_path: Path) -> None:
    weights = tmp_path / "weights.safetensors"
    write_weights(weights, 1)
    assert refresh(tmp_path / "w", source, weights, 3, part_images=21).counts.vectors == 64  # 63 and one alone


def test_a_device_that_fails_fails_the_part_when_all_have_ended(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = tmp_path / "weights.safetensors"
    write_weights(weights, 1)
    real, made, is_gone = embedder.embed, [], threading.Event()
    monkeypatch.setattr(embedder, "piece_rows", lambda encoder, workers: 2)

    def failing(encoder: Encoder, images: Any, **named: Any) -> Iterator[embedder.Piece]:
        if str(encoder.device) == "cpu:1":
            is_gone.set()
            raise OSError("the second device is gone")
        for piece in real(encoder, images, **named):
            is_gone.wait(timeout=60)
            time.sleep(0.1)
            made.append(piece)
            yield piece

    with monkeypatch.context() as patch:
        patch.setattr(embedder, "embed", failing)
        with pytest.raises(OSError, match="the second device is gone"):
            refresh(tmp_path / "w", source, weights, 2)
    assert len(made) < 8  # of 16 images in pieces of two: what it makes now is thrown away
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("wtl-embed")]
    assert not [name for name in files(tmp_path / "w") if name.endswith(".lance")]  # half a part is none
    assert refresh(tmp_path / "w", source, weights, 2).counts.vectors == 64
