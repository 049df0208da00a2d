"""Labels that may be wrong: planted ones are found, with the reason, and what cannot be judged is told."""

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from tests.conftest import TINTS, make_tinted
from tests.plain_refresh import refresh
from wtl_core.errors import ConfigError
from wtl_core.labelling import label_errors, labels
from wtl_core.workspace import ledger
from wtl_core.workspace.storage import Store


def clusters(seed: int, *, count: int = 300, spread: float = 0.25) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors around three directions, and which one."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 3, count)
    values = np.eye(8)[labels] + spread * generator.standard_normal((count, 8))
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32), labels


def flipped(labels: np.ndarray, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    rows = generator.choice(len(labels), count, replace=False)
    wrong = labels.copy()
    wrong[rows] = (wrong[rows] + generator.integers(1, 3, count)) % 3
    return wrong, rows


@pytest.mark.parametrize("seed", range(3))
def test_planted_errors_are_the_most_doubtful_labels(seed: int) -> None:
    values, right = clusters(seed)
    wrong, rows = flipped(right, 15, seed)
    found = label_errors.opinions(values, wrong, classes=3)
    assert set(np.argsort(found.doubt)[:15]) == set(rows)
    assert (found.best[rows] == right[rows]).all()
    assert (found.favourite[rows] == right[rows]).all()
    assert (found.neighbours, found.votes.max()) == (20, 20)


def test_doubt_is_what_the_formula_says() -> None:
    values, right = clusters(7, count=60, spread=0.6)
    wrong, _ = flipped(right, 6, 7)
    found = label_errors.opinions(values, wrong, classes=3)
    place = np.array([np.sum(wrong[:row] == wrong[row]) for row in range(60)])
    probable = np.zeros((60, 3))
    for fold in range(5):
        taught, judged = place % 5 != fold, place % 5 == fold
        mean, scale = values[taught].mean(0), values[taught].var(0).mean() ** 0.5
        penalty = min(0.01, 6 / taught.sum())
        # scikit-learn minimises the sum of losses and half the squared weights times 1 / C
        model = LogisticRegression(C=1 / (2 * penalty * taught.sum()), max_iter=1000, tol=1e-8)
        model.fit((values[taught] - mean) / scale, wrong[taught])
        probable[judged] = model.predict_proba((values[judged] - mean) / scale)
    similar = values @ values.T
    np.fill_diagonal(similar, -2)
    near = np.argsort(-similar, axis=1, kind="stable")[:, :10]
    votes = np.array([[np.sum(wrong[row] == label) for label in range(3)] for row in near])
    own = np.arange(60)
    threshold = np.array([probable[wrong == label, label].mean() for label in range(3)])
    expected = probable[own, wrong] / threshold[wrong] * (votes[own, wrong] + 1) / 13
    # neighbours are those of vectors in bfloat16, so one of ten may be another one where two are equally near
    assert np.abs(np.log(found.doubt / expected)).max() <= np.log(2) + 1e-2
    assert np.mean(np.abs(found.doubt / expected - 1) < 1e-2) > 0.85
    assert np.allclose(found.probability, probable.max(1), atol=1e-3)


def test_few_images_have_fewer_neighbours() -> None:
    values, right = clusters(1, count=18, spread=0.1)
    right[:15] = np.repeat([0, 1, 2], 5)
    found = label_errors.opinions(values, right, classes=3)
    assert found.neighbours == 5
    assert 1 <= found.votes.min() <= found.votes.max() <= 5
    assert np.isfinite(found.doubt).all()


@pytest.fixture(scope="module")
def coloured_pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`photos/<colour>-<n>.png`, twelve of each colour, and a workspace `w`."""
    folder = tmp_path_factory.mktemp("coloured")
    (folder / "photos").mkdir()
    for number, colour in enumerate(TINTS):
        for seed in range(12):
            (folder / "photos" / f"{colour}-{seed}.png").write_bytes(make_tinted(100 * number + seed, TINTS[colour]))
    refresh(folder / "w", folder / "photos")
    return folder


def test_wrong_labels_of_a_workspace_are_listed_with_their_reason(coloured_pool: Path, tmp_path: Path) -> None:
    store = Store(str(coloured_pool / "w"))
    given = {f"{colour}-{seed}.png": [colour] for colour in TINTS for seed in range(12)}
    given["blue-3.png"] = ["amber"]
    given["cyan-5.png"] = ["blue"]
    given["cyan-0.png"], given["cyan-1.png"], given["amber-0.png"] = ["cyan", "blue"], ["rare"], []
    file = tmp_path / "t.json"
    file.write_text(json.dumps([*({"path": name, "label": names} for name, names in given.items())]))
    length = ledger.length(store)
    labels.add(store, file)
    checked = label_errors.check(store)
    assert ledger.length(store) == length + 1
    assert checked.table.columns == list(label_errors.SCHEMA)
    found = {Path(row["uri"]).name: row for row in checked.table.iter_rows(named=True)}
    assert set(found) == {"blue-3.png", "cyan-5.png"}
    row = found["blue-3.png"]
    assert row["reason"] == f"labelled amber; {row['neighbours']} of 5 neighbours and the probe say blue"
    assert row["neighbours"] >= 4
    assert (row["label"], row["suggestion"], row["origin"]) == ("amber", "blue", str(file))
    assert (checked.checked, checked.several, checked.rare, checked.unknown, checked.departed) == (33, 1, 2, 0, 0)
    assert label_errors.check(store).table.equals(checked.table)


def test_labels_that_cannot_be_checked_are_refused_in_one_line(coloured_pool: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(coloured_pool / "w", tmp_path / "w")
    shutil.rmtree(tmp_path / "w" / "ledger", ignore_errors=True)
    store = Store(str(tmp_path / "w"))
    with pytest.raises(ConfigError, match="two classes or more with at least 5 images each, found 0 of 0 labels"):
        label_errors.check(store)
    (tmp_path / "names.txt").write_text("\n".join(f"blue-{seed}.png" for seed in range(12)))
    labels.add(store, tmp_path / "names.txt")
    with pytest.raises(ConfigError, match="found 0 of 12 labels; add labels with classes"):
        label_errors.check(store)
    with pytest.raises(ConfigError, match="expected vectors, found none yet"):
        label_errors.check(Store(str(tmp_path / "nothing")))
