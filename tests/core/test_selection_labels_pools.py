"""Labels on four kinds of pools: they are heard where they are true, gain on a long tail, and cost little elsewhere."""

import numpy as np
import pytest
import torch

from tests.clustered_pool import rank
from wtl_core.benchmark import judges
from wtl_core.selection.linear_probe import fit_probe
from wtl_core.selection.result import Ranking

pytestmark = pytest.mark.usefixtures("two_threads")

SPREAD, DIMENSIONS, PARTS, COPIES = 1.3, 32, 3, 5
"""Classes of three parts that overlap: from 300 labels a probe names 70 % right of ten balanced classes."""
SIZES = {
    "balanced": [300] * 10,
    "long tail": (600 * 50.0 ** (-np.arange(10) / 9)).astype(int).tolist(),
    "bursts": [300 // COPIES] * 10,
    "200 classes": [15] * 200,
}
LABELS = {"balanced": 150, "long tail": 150, "bursts": 150, "200 classes": 600}


def images(sizes: list[int], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Vectors of unit length and their classes, of so many images a class."""
    draw = np.random.default_rng(seed)
    parts = np.random.default_rng(5).normal(size=(len(sizes), PARTS, DIMENSIONS))
    codes = np.repeat(np.arange(len(sizes)), sizes)
    drawn = parts[codes, draw.integers(0, PARTS, len(codes))] + SPREAD * draw.normal(size=(len(codes), DIMENSIONS))
    return unit(drawn), codes


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def accuracies(
    vectors: np.ndarray, codes: np.ndarray, test: tuple[np.ndarray, np.ndarray], classes: int
) -> tuple[float, float]:
    """Per cent by 20 nearest neighbours and by a probe."""
    given, known, asked, truth = (torch.from_numpy(array) for array in (vectors, codes, *test))
    nearest = judges.nearest_accuracy(given, known, asked, truth, classes=classes)
    return 100 * nearest, 100 * judges.probe_accuracy(fit_probe(given, known, classes=classes), asked, truth)


def gain(kind: str, seed: int) -> np.ndarray:
    """Points by 20-NN and by a probe that labels add to the second half of the picks; checks when they are heard."""
    sizes, labels = SIZES[kind], LABELS[kind]
    vectors, codes = images(sizes, seed)
    if kind == "bursts":
        moved = 0.02 * np.random.default_rng(seed).normal(size=(COPIES * len(vectors), DIMENSIONS))
        vectors, codes = unit(np.repeat(vectors, COPIES, axis=0) + moved), np.repeat(codes, COPIES)
    first = rank(vectors)
    labelled = first.rows[:labels]
    rest = np.setdiff1d(np.arange(len(vectors)), labelled)

    def again(given: np.ndarray) -> Ranking:
        classes = [(f"class {code}",) for code in given]
        return rank(vectors[rest], labelled=vectors[labelled], labelled_classes=classes, scale=first.scale)

    steered = again(codes[labelled])
    assert steered.labels is not None
    assert steered.labels.is_heard
    shuffled = again(np.random.default_rng(seed).permutation(codes[labelled]))
    assert shuffled.labels is not None
    assert not shuffled.labels.is_heard
    plain = rank(vectors[rest], labelled=vectors[labelled], scale=first.scale)
    np.testing.assert_array_equal(shuffled.rows, plain.rows)
    test = images([2000 // len(sizes)] * len(sizes), 99)
    by_labels = np.concatenate([labelled, rest[steered.rows[:labels]]])
    in_one_pass = first.rows[: 2 * labels]
    found = [accuracies(vectors[rows], codes[rows], test, len(sizes)) for rows in (by_labels, in_one_pass)]
    return np.subtract(*found)


@pytest.mark.parametrize("kind", SIZES)
def test_true_labels_are_heard_shuffled_ones_are_not_and_no_kind_of_pool_loses_two_points(kind: str) -> None:
    # Rounding of another kind of processor gives other picks, so a draw by itself says little: on long tails one has a
    # standard deviation of 2 to 3 points, elsewhere of 0.5 to 1.4. Over ten draws: -1.1 to +1.4, on the long tail +7.
    gains = np.mean([gain(kind, seed) for seed in range(8)], axis=0)
    assert gains.min() > (5 if kind == "long tail" else -2)
