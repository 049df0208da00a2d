"""Components by near pairs and equal values, held against plain ones, with rows that have a side already."""

import numpy as np
import pytest

from tests.clustered_pool import clustered
from wtl_core.selection import near_pairs
from wtl_core.selection.identity import content_keys
from wtl_core.selection.near_pairs import connect_equal, connect_near, new_forest
from wtl_core.selection.neighbours import prepare


def burst_pool(rows: int, *, seed: int = 0) -> np.ndarray:
    """Unit vectors, half of them near copies of others."""
    own = clustered(rows // 2, clusters=12, spread=1.0, seed=seed)
    generator = np.random.default_rng(seed)
    copies = own[generator.integers(0, len(own), rows - len(own))]
    copies = copies + 0.02 * generator.normal(size=copies.shape)
    both = np.concatenate([own, copies])[generator.permutation(rows)]
    return (both / np.linalg.norm(both, axis=1, keepdims=True)).astype(np.float32)


def plain(
    vectors: np.ndarray, values: np.ndarray, sides: np.ndarray, distance: float
) -> list[tuple[set[int], set[int]]]:
    """The new rows of each component, and the sides that they are linked to directly."""
    new = len(vectors) - len(sides)
    gaps = np.linalg.norm(vectors[:, None].astype(np.float64) - vectors[None], axis=2)
    linked = (gaps <= distance) | ((values[:, None] == values[None]) & (values[:, None] >= 0))
    found, left = [], set(range(new))
    while left:
        component = [left.pop()]
        for row in component:
            nearer = [other for other in sorted(left) if linked[row, other]]
            left -= set(nearer)
            component += nearer
        touched = {
            int(sides[other - new]) for row in component for other in range(new, len(vectors)) if linked[row, other]
        }
        found.append((set(component), touched))
    return sorted(found, key=lambda pair: min(pair[0]))


@pytest.mark.parametrize("sided", [0, 150])
@pytest.mark.parametrize("by_cells", [False, True])
def test_components_and_the_sides_that_they_touch_are_those_of_a_plain_search(
    sided: int, by_cells: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if by_cells:
        monkeypatch.setattr(near_pairs, "_CELLS_FROM", 0)
    generator = np.random.default_rng(1)
    vectors = burst_pool(600)
    values = np.where(generator.random(600) < 0.2, generator.integers(0, 40, 600), -1)
    sides = generator.integers(0, 3, sided).astype(np.int8)
    forest = new_forest(600 - sided)
    connect_equal(forest, values, sides)
    apart = generator.integers(0, 2, 600).astype(np.int8)
    keys = content_keys([str(row) for row in range(600)])
    pairs, torn = connect_near(forest, prepare(vectors), sides, distance=0.3, keys=keys, apart=apart)
    of, touched = forest.components()
    got = [
        (set(np.flatnonzero(of == group).tolist()), {side for side in range(3) if touched[group] >> side & 1})
        for group in range(len(touched))
    ]
    gaps = np.linalg.norm(vectors[:, None].astype(np.float64) - vectors[None], axis=2)
    assert not ((gaps > 0.295) & (gaps < 0.305)).any()  # rounding decides nothing here
    assert got == plain(vectors, values, sides, 0.3)
    assert len(got) < 400
    near = np.triu(gaps <= 0.3, 1)[: 600 - sided]
    assert (pairs, torn) == (near.sum(), (near & (apart[: 600 - sided, None] != apart[None])).sum())


def test_rows_that_have_a_side_carry_no_chain_on() -> None:
    angle = np.array([0.0, 0.2, 0.1])  # the last one has a side and lies between the others
    vectors = np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)
    forest = new_forest(2)
    connect_near(forest, prepare(vectors), np.array([2], np.int8), distance=0.15, keys=np.arange(3, dtype=np.uint64))
    of, touched = forest.components()
    assert (of.tolist(), touched.tolist()) == ([0, 1], [4, 4])


def test_the_order_of_rows_changes_no_component() -> None:
    vectors, order = burst_pool(3000, seed=2), np.random.default_rng(0).permutation(3000)
    keys = content_keys([str(row) for row in range(3000)])
    none = np.zeros(0, np.int8)
    first, again = new_forest(3000), new_forest(3000)
    assert connect_near(first, prepare(vectors), none, distance=0.2, keys=keys) == connect_near(
        again, prepare(vectors[order]), none, distance=0.2, keys=keys[order]
    )
    of, other = first.components()[0], again.components()[0]
    assert len(np.unique(np.stack([of[order], other]), axis=1).T) == of.max() + 1 == other.max() + 1
