"""When an encoder needs a successor: the policy in words, the measure of drift, and a refresh that follows it."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tests.conftest import make_jpeg
from tests.plain_refresh import files, refresh
from wtl_core.embedding import staging, vectors
from wtl_core.encoders import cards
from wtl_core.encoders.encoder_ref import EncoderRef
from wtl_core.errors import CorruptArtifactError
from wtl_core.recipe.encoder import EncoderParams
from wtl_core.recipe.recipe import Recipe
from wtl_core.refresh import encoder_age
from wtl_core.report import status, summary
from wtl_core.training import succession
from wtl_core.training.succession import ageing, reasons
from wtl_core.workspace import commits
from wtl_core.workspace.commits import Age
from wtl_core.workspace.storage import Store

ENCODER = "a" * 64
REF = EncoderRef(ENCODER, "ssl", ENCODER, 16, None)
SSL = {"name": "ssl", "epochs": 1, "side_px": 16, "width": 8, "batch_images": 8}


def age(now: int, own: float | None = None) -> Age:
    return Age(images_then=100, images_now=now, own_share=own)


def test_growth_and_drift_each_call_for_a_successor_and_say_so() -> None:
    params = EncoderParams()
    assert reasons(None, params) == reasons(age(199, 0.6), params) == []
    assert ageing(age(230), params) == (
        "the pool is 2.3 x the 100 images that its encoder was made from: make a new one with `wtl train-encoder`"
    )
    both = ageing(age(200, 0.72), EncoderParams(retrain="automatic"))
    assert both is not None
    assert "and images that came after its encoder was made form clusters of their own (72% of their nearest" in both
    assert both.endswith("the next refresh makes a new one")
    assert ageing(age(900, 1.0), EncoderParams(retrain="never")) is None
    assert reasons(age(250, 0.9), EncoderParams(retrain_growth=3, retrain_drift=1)) == []


def workspace_of(root: Path, known: np.ndarray, fresh: np.ndarray) -> tuple[Store, pl.DataFrame]:
    """A workspace whose encoder was trained on the first of two clouds of vectors, and its samples now."""
    store = Store(str(root))
    rows = np.concatenate([known, fresh])
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)
    ids = [hashlib.sha256(str(row).encode()).hexdigest() for row in range(len(rows))]
    staging.stage(store, ENCODER, "a", ids, rows)
    vectors.commit_staged(store, ENCODER, ["a"], rows.shape[1])
    cards.save_origin(store, ENCODER, ids[: len(known)])
    samples = pl.DataFrame({"sample_id": ids, "is_filtered": [False] * len(ids)})
    return store, samples.with_columns(duplicate_of=pl.lit(None, pl.String), phash=pl.Series(hashes_of(len(ids))))


def hashes_of(count: int) -> np.ndarray:
    """Perceptual hashes of images that do not look alike."""
    return np.random.default_rng(7).integers(1, 2**64, count, dtype=np.uint64)


@pytest.mark.parametrize("most_ids", [5000, 1200])
def test_half_the_neighbours_of_like_arrivals_are_arrivals_and_all_of_unlike_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most_ids: int
) -> None:
    monkeypatch.setattr(cards, "ORIGIN_IDS", most_ids)
    random = np.random.default_rng(0)
    known, same = (random.standard_normal((count, 16)) + 1 for count in (2000, 2000))
    alike = encoder_age.measure(*workspace_of(tmp_path / "alike", known, same), REF)
    other = encoder_age.measure(*workspace_of(tmp_path / "other", known, -same), REF)
    assert alike is not None
    assert other is not None
    assert (alike.images_then, alike.images_now) == (2000, 4000)
    assert alike.own_share == pytest.approx(0.5, abs=0.03)
    assert other.own_share is not None
    assert other.own_share > 0.95


def test_a_burst_of_near_duplicates_counts_as_one_image(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    shots = random.standard_normal((700, 16))
    bursts = np.repeat(shots, 3, axis=0) + 0.01 * random.standard_normal((2100, 16))
    store, samples = workspace_of(tmp_path, random.standard_normal((700, 16)), bursts)
    single = encoder_age.measure(store, samples, REF)
    hashes = hashes_of(1400)
    alike = pl.Series(np.concatenate([hashes[:700], np.repeat(hashes[700:], 3)]))
    grouped = encoder_age.measure(store, samples.with_columns(phash=alike), REF)
    assert single is not None
    assert grouped is not None
    assert single.own_share is not None
    assert single.own_share > grouped.own_share + 0.05  # type: ignore[operator]
    assert grouped.own_share == pytest.approx(0.5, abs=0.04)
    assert single.images_now == grouped.images_now == 2800


def test_few_arrivals_give_no_share_and_a_foreign_encoder_no_age(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    store, samples = workspace_of(tmp_path, random.standard_normal((600, 8)), random.standard_normal((20, 8)))
    assert encoder_age.measure(store, samples, REF) == Age(images_then=600, images_now=620)
    assert encoder_age.measure(store, samples, replace(REF, fingerprint="b" * 64, resolvable="b" * 64)) is None
    assert encoder_age.measure(store, samples, replace(REF, name="file:elsewhere.safetensors")) is None


def recipe(retrain: str) -> Recipe:
    return Recipe.model_validate({"encoder": {**SSL, "retrain": retrain}})


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    (tmp_path / "source").mkdir()
    add(tmp_path / "source", 0, 20)
    return tmp_path / "source"


def add(source: Path, first: int, count: int) -> None:
    for seed in range(first, first + count):
        (source / f"{seed}.jpg").write_bytes(make_jpeg(seed, side=16))


def test_a_pool_that_outgrew_its_encoder_is_told_and_keeps_it(pictures: Path, tmp_path: Path) -> None:
    root = tmp_path / "w"
    first = refresh(root, pictures, recipe=recipe("advise"))
    assert first.encoder_age == Age(images_then=20, images_now=20)
    add(pictures, 20, 24)
    second = refresh(root, recipe=None)
    assert second.encoder == first.encoder
    age_of_grown = Age(images_then=20, images_now=44)
    assert second.encoder_age == age_of_grown
    told = summary.summary(Store(str(root)), second, is_new=True).encoder_advice
    assert told == ageing(age_of_grown, EncoderParams())
    assert status.read(Store(str(root))).encoder_advice == told
    assert "the pool is 2.2 x the 20 images" in (root / second.report).read_text()
    before = files(root)
    assert refresh(root, recipe=None) == second  # advice alone is nothing to do
    assert files(root) == before


def test_an_automatic_policy_trains_the_next_encoder_in_the_refresh_behind(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "w"
    first = refresh(root, pictures, recipe=recipe("automatic"))
    assert refresh(root, recipe=None) == first
    add(pictures, 20, 24)
    grown = refresh(root, recipe=None)
    assert (grown.number, grown.encoder) == (2, first.encoder)
    with monkeypatch.context() as patch:  # killed when the successor is named and nothing is embedded yet
        patch.setattr("wtl_core.embedding.chunks.plan", lambda *given, **named: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            refresh(root, recipe=None)
    assert commits.latest(Store(str(root))) == grown  # the old ranking stands
    third = refresh(root, recipe=None)
    assert third.encoder == succession.successor(Store(str(root))) != first.encoder
    assert third.counts.vectors == 44
    assert third.encoder_age == Age(images_then=44, images_now=44)
    assert refresh(root, recipe=None) == third
    assert json.loads((root / "encoders" / third.encoder / "card.json").read_text())["images"] == 44


@pytest.mark.parametrize(
    ("file", "read"),
    [
        ("next.json", succession.successor),
        ("x/origin.json", lambda store: cards.load_origin(store, "x")),
        ("x/check.json", lambda store: cards.load_check(store, "x")),
        ("x/card.json", lambda store: cards.load_card(store, "x")),
    ],
)
@pytest.mark.parametrize("data", [b"", b'{"cut', b"\xff\xfe"])
def test_a_file_beside_an_encoder_that_is_damaged_is_told(
    file: str, read: Callable[[Store], object], data: bytes, tmp_path: Path
) -> None:
    store = Store(str(tmp_path))
    assert read(store) is None
    store.write_bytes(f"encoders/{file}", data)
    with pytest.raises(CorruptArtifactError, match=f"encoders/{file}: expected"):
        read(store)
