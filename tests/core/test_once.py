"""What a refresh needs is read once and given back: the pool, and the network that makes the vectors."""

import gc
import weakref
from pathlib import Path

import pytest

from tests.conftest import make_jpeg
from tests.plain_refresh import refresh
from wtl_core.embedding import chunks
from wtl_core.encoders import resolve
from wtl_core.encoders.encoder import Encoder
from wtl_core.pool import live_pool
from wtl_core.selection import stage


def test_no_network_is_loaded_while_the_pool_is_ranked(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[weakref.ref[Encoder]] = []
    alive: dict[str, int] = {}

    def count_alive() -> int:
        gc.collect()
        return sum(reference() is not None for reference in loaded)

    load, embed, rank = resolve.resolve, chunks.run, stage.run

    def resolve_and_note(*given: object, **named: object) -> Encoder:
        encoder = load(*given, **named)  # type: ignore[arg-type]
        loaded.append(weakref.ref(encoder))
        return encoder

    def embed_and_count(*given: object, **named: object) -> object:
        alive["embedding"] = count_alive()
        return embed(*given, **named)  # type: ignore[arg-type]

    def rank_and_count(*given: object, **named: object) -> object:
        alive["selection"] = count_alive()
        return rank(*given, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(resolve, "resolve", resolve_and_note)
    monkeypatch.setattr(chunks, "run", embed_and_count)
    monkeypatch.setattr(stage, "run", rank_and_count)
    refresh(tmp_path / "w", source)
    assert alive == {"embedding": 1, "selection": 0}


def test_the_pool_is_loaded_once_and_that_of_the_last_refresh_not_at_all(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refresh(tmp_path / "w", source)
    (source / "new.jpg").write_bytes(make_jpeg(900))
    loads: list[int] = []
    load = live_pool.load

    def load_and_count(*given: object, **named: object) -> live_pool.Pool:
        loaded = load(*given, **named)  # type: ignore[arg-type]
        loads.append(loaded.samples.height)
        return loaded

    monkeypatch.setattr(live_pool, "load", load_and_count)
    counts = refresh(tmp_path / "w", source).counts
    assert (counts.samples, counts.new_samples) == (65, 1)
    assert loads == [65]
