"""When nothing has arrived and there are vectors to make all the same: new weights, images that are there again."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import make_jpeg
from tests.plain_refresh import files, refresh
from tests.small_encoders import timm_weights, write_weights
from wtl_core.embedding import chunks, embedder, vectors
from wtl_core.errors import ConfigError
from wtl_core.machine import Machine
from wtl_core.recipe.recipe import Recipe
from wtl_core.refresh import arrivals, novelty
from wtl_core.shards import reader
from wtl_core.workspace import commits, ledger
from wtl_core.workspace.commits import Commit
from wtl_core.workspace.storage import Store


def test_a_part_that_fails_keeps_what_it_committed_and_makes_only_the_rest(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "COMMIT_IMAGES", 3)
    monkeypatch.setattr(embedder, "piece_rows", lambda encoder, workers: 1)
    real, made, ends = embedder.embed, list[str](), [7, 8]

    def failing(*args: Any, **named: Any) -> Iterator[embedder.Piece]:
        last = ends.pop(0)
        for number, piece in enumerate(real(*args, **named)):
            if number == last:
                raise OSError("the disk is gone")
            made.extend(piece.ids)
            yield piece

    monkeypatch.setattr(embedder, "embed", failing)
    with pytest.raises(OSError, match="the disk is gone"):
        refresh(tmp_path / "w", pictures)
    store = Store(str(tmp_path / "w"))
    (digest,) = vectors.fingerprints(store)
    assert set(vectors.existing_ids(store, digest)) == set(
        made[:6]
    )  # two commits of three; the seventh was not yet one
    assert refresh(tmp_path / "w", pictures).counts.vectors == 8
    assert len(made) == 7 + 2
    assert set(made[7:]) == set(vectors.existing_ids(store, digest)) - set(made[:6])


def test_weights_that_were_replaced_under_their_name_embed_anew(
    pictures: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("WARNING", logger="wtl_core")
    weights = tmp_path / "weights.safetensors"
    recipe = Recipe.model_validate({"encoder": {"name": f"file:{weights}"}})
    first_digest = write_weights(weights, 1)
    first = refresh(tmp_path / "w", pictures, recipe=recipe)
    assert first.encoder == first_digest
    os.utime(weights)  # another time, the same bytes
    assert refresh(tmp_path / "w", recipe=None) == first
    second_digest = write_weights(weights, 2)
    second = refresh(tmp_path / "w", recipe=None)
    assert (second.number, second.encoder) == (2, second_digest)
    assert refresh(tmp_path / "w", recipe=None) == second
    assert not caplog.records
    weights.unlink()  # needed by no run that has nothing to do
    assert refresh(tmp_path / "w", recipe=None) == second
    assert "the last result stands" in caplog.text


def test_a_weights_file_by_a_relative_path_is_found_from_another_folder(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("here", "elsewhere"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    first_digest = write_weights(tmp_path / "here" / "w.safetensors", 1)
    recipe = Recipe.model_validate({"encoder": {"name": "file:w.safetensors"}})
    first = refresh(tmp_path / "w", pictures, recipe=recipe)
    assert (first.encoder, first.encoder_name) == (first_digest, f"file:{tmp_path}/here/w.safetensors")
    assert refresh(tmp_path / "w", recipe=recipe) == first
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert refresh(tmp_path / "w", recipe=None) == first
    (pictures / "new.jpg").write_bytes(make_jpeg(99))
    assert refresh(tmp_path / "w", recipe=None).counts.vectors == 9
    second_digest = write_weights(tmp_path / "here" / "w.safetensors", 2)
    assert refresh(tmp_path / "w", recipe=None).encoder == second_digest


def test_a_commit_that_names_its_weights_file_by_a_relative_path_still_opens(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("WARNING", logger="wtl_core")
    monkeypatch.chdir(tmp_path)
    write_weights(tmp_path / "w.safetensors", 1)
    name = f"file:{tmp_path}/w.safetensors"
    first = refresh(tmp_path / "w", pictures, recipe=Recipe.model_validate({"encoder": {"name": name}}))
    (file,) = (tmp_path / "w" / "refreshes").iterdir()
    file.write_text(file.read_text().replace(name, "file:w.safetensors"))  # as former versions wrote it
    assert refresh(tmp_path / "w", recipe=None).number == first.number
    assert not caplog.records
    recorded = commits.latest(Store(str(tmp_path / "w")))
    assert recorded is not None
    assert refresh(tmp_path / "w", recipe=recorded.recipe).number == first.number  # as the command line hands it on
    monkeypatch.chdir(tmp_path / "w")
    assert refresh(tmp_path / "w", recipe=None).number == first.number
    assert "encoder file:w.safetensors: expected the files that it was loaded from, found none" in caplog.text
    (pictures / "new.jpg").write_bytes(make_jpeg(99))
    with pytest.raises(ConfigError, match=rf"found none at {tmp_path}/w/w\.safetensors"):
        refresh(tmp_path / "w", recipe=None)
    monkeypatch.chdir(tmp_path)
    assert refresh(tmp_path / "w", recipe=None).counts.vectors == 9


def test_another_side_of_the_same_network_embeds_anew(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = timm_weights("test_resnet", tmp_path)

    def at(side: int | None) -> Commit:
        recipe = Recipe.model_validate({"encoder": {"name": name, "side_px": side}})
        return refresh(tmp_path / "w", pictures, recipe=recipe)

    commits = [at(side) for side in (None, 32, 64)]
    assert len({commit.encoder for commit in commits}) == 3
    assert at(64) == commits[-1]
    # a look at arrivals compares them with vectors of the same encoder
    used: list[str] = []
    embed = embedder.embed
    monkeypatch.setattr(
        embedder,
        "embed",
        lambda encoder, *args, **more: used.append(encoder.fingerprint) or embed(encoder, *args, **more),
    )
    store = Store(str(tmp_path / "w"))
    ledger.append(store, "labelled", sorted(vectors.existing_ids(store, commits[-1].encoder)))
    novelty.share(store, arrivals.arrived(store, []), Machine())
    assert used == [commits[-1].encoder]


@pytest.mark.parametrize("name", ["pixels", "file:w.safetensors", "python:my_nets:build", "a" * 64])
def test_a_side_for_an_encoder_that_has_its_own_is_refused(name: str, pictures: Path, tmp_path: Path) -> None:
    recipe = Recipe.model_validate({"encoder": {"name": name, "side_px": 64}})
    with pytest.raises(ConfigError, match=r"encoder.side_px: expected it with ssl, .* leave it out"):
        refresh(tmp_path / "w", pictures, recipe=recipe)
    assert not (tmp_path / "w" / "commits").exists()


def test_an_image_that_could_not_be_read_for_its_vector_gets_one_later(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = Recipe.model_validate({"encoder": {"name": "pixels"}, "ingest": {"store": "reference"}})
    read_again = reader.read_again

    def failing(uri: str, wanted: list[reader.Wanted], **more: str | None) -> Iterator[bytes | None]:
        return iter([None] * len(wanted)) if uri.endswith("/3.jpg") else read_again(uri, wanted, **more)

    with monkeypatch.context() as patch:
        patch.setattr(reader, "read_again", failing)
        first = refresh(tmp_path / "w", pictures, recipe=recipe)
        assert (first.counts.vectors, first.counts.quarantined) == (7, 1)
        assert first.by_source[str(pictures)].quarantined == 1
        assert first.counts.new_samples == 7
        page = (tmp_path / "w" / first.report).read_text()
        assert "<tr><td>missing</td><td>1</td>" in page
        assert f'<td class="name">{pictures}/3.jpg</td>' in page
        before = files(tmp_path / "w")
        assert refresh(tmp_path / "w", recipe=None) == first
        assert files(tmp_path / "w") == before
    second = refresh(tmp_path / "w", recipe=None)
    assert (second.counts.vectors, second.counts.quarantined, second.counts.ranked) == (8, 0, 8)
    assert refresh(tmp_path / "w", recipe=None) == second
