"""The draw of groups for training, validation and test: maths alone.

Each group that fits is equally likely to be on a side, whatever its size, so figures of validation and test are
unbiased. Groups of several images are drawn first; groups of one image then make up for what those are beside the
shares that were asked. Draws are spread evenly over groups that are ordered by class and size, so that classes and
sizes have their shares too.

Legend: `G` groups.
"""

from collections.abc import Sequence

import numpy as np

from wtl_core.selection.identity import Purpose, draw


def draw_sides(
    sizes: np.ndarray, classes: np.ndarray, keys: np.ndarray, *, shares: Sequence[float], others: int = 0
) -> tuple[np.ndarray, int]:
    """The side of each group, 0 for training, 1 for validation, 2 for test.

    A group that is larger than the smallest of validation and test is to be goes to training: on another side it would
    be most of it.

    Args:
        sizes: (G,) int64, images of each group.
        classes: (G,) int64, a code of each group's class; equal where it is not known.
        keys: (G,) uint64, what the draw depends on: a content key of each group.
        shares: Of training, validation and test, from 0; they sum to 1.
        others: Images of the pool that have a side already.

    Returns:
        (G,) int8, and how many groups are too large to be drawn.
    """
    sides = np.zeros(len(sizes), np.int8)
    if not len(sizes):
        return sides, 0
    total, (_, *wanted) = int(sizes.sum()), shares
    fits = sizes <= (total + others) * min((share for share in wanted if share), default=0.0)
    fits |= sizes == 1
    by_turns = np.where(classes % 2, sizes, -sizes)  # sizes then change little from each class to the next
    order = np.lexsort((keys, draw(keys, 0, Purpose.SPLIT), by_turns, classes))
    begins = [float(draw(keys.min(keepdims=True), seed, Purpose.SPLIT)[0]) / 2.0**64 for seed in range(1, 5)]
    several, single = (order[chosen[order]] for chosen in (fits & (sizes > 1), sizes == 1))
    drawable = max(1.0, float(sizes[fits].sum()))
    _spread(sides, several, [share * total / drawable for share in wanted], begins[:2])
    missing = [share * total - sizes[sides == side].sum() for side, share in enumerate(wanted, 1)]
    _spread(sides, single, [max(0.0, count) / max(1, len(single)) for count in missing], begins[2:])
    return sides, int((~fits).sum())


def _spread(sides: np.ndarray, groups: np.ndarray, shares: Sequence[float], begins: Sequence[float]) -> None:
    """Give `groups` the sides 1, 2 in these shares of their number, each spread evenly over what is left.

    Where each begins is random (`begins`, from 0 to 1), so that no group is surely on a side.
    """
    left = 1.0
    for side, (share, begin) in enumerate(zip(shares, begins, strict=True), 1):
        rate = min(1.0, share / left) if left > 0 else 0.0
        steps = np.floor(np.arange(len(groups) + 1) * rate + begin)
        is_drawn = np.diff(steps) > 0
        sides[groups[is_drawn]] = side
        groups, left = groups[~is_drawn], left - share
