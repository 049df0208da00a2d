"""The draw of groups: shares, and that every group is as likely on a side as any other, whatever its size or class."""

from collections import Counter

import numpy as np
import pytest

from wtl_core.labelling.split_draw import draw_sides
from wtl_core.selection.identity import content_keys

SHARES = [0.8, 0.1, 0.1]


def keys_of(pool: int, groups: int) -> np.ndarray:
    return content_keys([f"{pool}-{group}" for group in range(groups)])


def test_shares_hold_in_spite_of_groups_and_every_group_is_equally_likely_on_a_side() -> None:
    """Four hundred pools of 10,000 images: 100 bursts of 4 to 40, the rest alone."""
    drawn: Counter[tuple[str, int]] = Counter()
    totals: Counter[str] = Counter()
    for pool in range(400):
        generator = np.random.default_rng(pool)
        bursts = generator.integers(4, 41, 100)
        sizes = np.concatenate([bursts, np.ones(10_000 - bursts.sum(), np.int64)])
        classes = generator.integers(0, 10, len(sizes))
        sides, too_large = draw_sides(sizes, classes, keys_of(pool, len(sizes)), shares=SHARES)
        assert too_large == 0
        for side, share in enumerate(SHARES):
            assert sizes[sides == side].sum() == pytest.approx(10_000 * share, abs=1)
        for name, chosen in (("alone", sizes == 1), ("small", (sizes > 1) & (sizes < 20)), ("large", sizes >= 20)):
            totals[name] += int(chosen.sum())
            for side in (1, 2):
                drawn[name, side] += int((sides[chosen] == side).sum())
    for (name, _), count in drawn.items():
        spread = np.sqrt(0.1 * 0.9 / totals[name])
        assert count / totals[name] == pytest.approx(0.1, abs=4 * spread), name


def test_shares_hold_within_half_a_point_where_all_images_are_in_groups() -> None:
    for pool in range(50):
        generator = np.random.default_rng(pool)
        sizes = generator.integers(5, 41, 450)  # recordings, some 10,000 images
        sides, _ = draw_sides(sizes, generator.integers(0, 10, 450), keys_of(pool, 450), shares=SHARES)
        for side, share in enumerate(SHARES):
            assert sizes[sides == side].sum() / sizes.sum() == pytest.approx(share, abs=0.005)


def test_each_class_has_its_share_of_a_side() -> None:
    generator = np.random.default_rng(0)
    classes = generator.choice(20, 10_000, p=np.arange(1, 21) / 210)
    sides, _ = draw_sides(np.ones(10_000, np.int64), classes, keys_of(0, 10_000), shares=SHARES)
    for number in range(20):
        own = sides[classes == number]
        for side in (1, 2):
            assert (own == side).sum() == pytest.approx(len(own) / 10, abs=2)


def test_groups_that_would_fill_a_side_are_in_training_and_the_shares_hold_without_them() -> None:
    sizes = np.concatenate([[3_000, 1_200], np.ones(5_800, np.int64)])
    sides, too_large = draw_sides(sizes, np.zeros(len(sizes), np.int64), keys_of(0, len(sizes)), shares=SHARES)
    assert (too_large, sides[:2].tolist()) == (2, [0, 0])
    assert [int(sizes[sides == side].sum()) for side in (1, 2)] == pytest.approx([1_000, 1_000], abs=1)


@pytest.mark.parametrize(
    ("shares", "expected"),
    [([0.9, 0.0, 0.1], (90, 0, 10)), ([0.5, 0.5, 0.0], (50, 50, 0)), ([0.2, 0.4, 0.4], (20, 40, 40))],
)
def test_a_side_without_a_share_is_empty(shares: list[float], expected: tuple[int, ...]) -> None:
    sides, _ = draw_sides(np.ones(100, np.int64), np.zeros(100, np.int64), keys_of(3, 100), shares=shares)
    assert tuple(np.bincount(sides, minlength=3).tolist()) == pytest.approx(expected, abs=1)


def test_small_additions_have_their_shares_on_average() -> None:
    """One image or one burst at a time, two thousand times."""
    one, none = np.ones(1, np.int64), np.zeros(1, np.int64)
    for size in (1, 5):
        drawn = [draw_sides(size * one, none, keys_of(pool, 1), shares=SHARES, others=100) for pool in range(2_000)]
        sides = [int(found[0]) for found, _ in drawn]
        assert np.bincount(sides, minlength=3) / 2_000 == pytest.approx(SHARES, abs=0.03)
    assert draw_sides(one[:0], none[:0], np.zeros(0, np.uint64), shares=SHARES)[0].tolist() == []


def test_the_draw_depends_on_keys_alone_and_not_on_their_order() -> None:
    sizes, keys = np.random.default_rng(0).integers(1, 9, 500), keys_of(0, 500)
    classes = np.arange(500) % 3
    sides, _ = draw_sides(sizes, classes, keys, shares=SHARES)
    order = np.random.default_rng(1).permutation(500)
    again, _ = draw_sides(sizes[order], classes[order], keys[order], shares=SHARES)
    assert (again == sides[order]).all()
