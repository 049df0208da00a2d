"""What labels so far show: accuracy on controls, picks against controls, the forecast, and the classes."""

from pathlib import Path

import numpy as np
import pytest

from tests.conftest import build_source
from tests.plain_refresh import refresh
from wtl_core.errors import ConfigError
from wtl_core.labelling import batches, progress
from wtl_core.labelling.batches import Asked
from wtl_core.workspace import ledger
from wtl_core.workspace.storage import open_store

pytestmark = pytest.mark.usefixtures("two_threads")


def blobs(rows: int, seed: int) -> tuple[np.ndarray, list[list[str]]]:
    """Vectors in three clusters that overlap, and their classes."""
    draw = np.random.default_rng(seed)
    codes = draw.integers(0, 3, rows)
    vectors = np.random.default_rng(5).normal(size=(3, 16))[codes] + 1.5 * draw.normal(size=(rows, 16))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32), [
        [f"c{code}"] for code in codes
    ]


def test_accuracy_is_that_on_images_which_taught_nothing() -> None:
    vectors, classes = blobs(1200, seed=0)
    is_control = np.arange(1200) % 3 == 0
    accuracy, compared = progress.measured(vectors, classes, is_control)
    others, theirs = blobs(4000, seed=1)
    truth, _ = progress.measured(
        np.concatenate([vectors[~is_control], others]), [*np.array(classes, object)[~is_control], *theirs],
        np.arange(800 + 4000) >= 800,
    )  # fmt: skip
    assert accuracy.low < truth.value < accuracy.high
    assert accuracy.high - accuracy.low < 0.1
    assert compared is not None
    assert compared.labels == 320
    assert compared.difference.low <= 0 <= compared.difference.high  # the picks are random ones here
    assert compared.difference.value == pytest.approx(compared.by_picks - compared.by_controls)


def test_picks_that_show_one_class_alone_teach_less_than_controls() -> None:
    vectors, classes = blobs(900, seed=0)
    is_control = np.arange(900) % 3 == 0
    rows = [row for row in range(900) if is_control[row] or classes[row] == ["c1"]]
    _, compared = progress.measured(vectors[rows], [classes[row] for row in rows], is_control[rows])
    assert compared is None  # fewer picks than controls
    rows += [row for row in range(900) if row not in rows]
    _, compared = progress.measured(vectors[rows], [classes[row] for row in rows], is_control[rows])
    assert compared is not None
    assert compared.difference.high < 0


def test_a_forecast_rises_with_the_labels_and_stays_within_the_error() -> None:
    found = [progress.forecast(0.8, 1000, more).gain for more in (100, 1000, 3000)]
    assert found[1].value == pytest.approx(0.104 * 0.2)
    assert [gain.value for gain in found] == sorted(gain.value for gain in found)
    for gain in found:
        assert gain.low < gain.value < gain.high <= 0.2
    assert progress.forecast(0.1, 10, 100_000).gain.value <= 0.9


def test_progress_of_a_workspace(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "w"))
    with pytest.raises(ConfigError, match="expected a ranking, found none yet"):
        progress.run(store)
    refresh(tmp_path / "w", build_source(tmp_path / "source", count=200))
    assert progress.run(store).classes.is_empty()
    batch = batches.hand_out(store, Asked(new=150, control="60"))
    ids = batch.table["sample_id"].to_list()
    classes = [["even"] if int(sample_id[0], 16) % 2 else ["odd"] for sample_id in ids]
    ledger.append(store, "labelled", ids[:20], classes=classes[:20])
    few = progress.run(store)
    assert (few.labelled, few.known, few.accuracy, few.forecast) == (20, 20, None, None)
    ledger.append(store, "labelled", ids[20:], classes=classes[20:])
    ledger.append(store, "labelled", ids[:1], classes=[None])
    found = progress.run(store, more=50)
    drawn = set(batches.control_ids(ledger.read(store), ids))
    assert (found.labelled, found.known) == (len(ids), len(ids) - 1)
    assert found.controls == len(drawn.difference(ids[:1]).intersection(ids))
    assert found.accuracy is not None
    assert found.accuracy.low < 0.5 < found.accuracy.high  # classes that no vector shows
    assert found.forecast is not None
    assert found.forecast.more == 50
    assert sorted(found.classes["class"]) == ["even", "odd"]
    assert found.classes["labels"].sum() == len(ids) - 1
    assert found.classes["pool_low"].null_count() == 0
    assert found.short == []
    assert found.to_json()["classes"][0]["class"] in ("even", "odd")
