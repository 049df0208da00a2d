"""The engine without a workspace: vectors in, a ranking out."""

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from wtl.ladder import Ladder
from wtl_core.errors import InputError
from wtl_core.recipe.operating_point import OperatingPoint
from wtl_core.recipe.recipe import build_recipe

if TYPE_CHECKING:
    from wtl_core.selection.ladder import Ladder as Measured


class Ranking:
    """Every row once, best first; each operating point is a prefix.

    Attributes:
        table: One row a rank: `rank`, `sample_id`, `row` (in the vectors given), `gain`, `coverage`, `radius`,
            `duplicate_of`, `stands_for`, `nearest_earlier`, `replaced_by`, `why`, as docs/workspace.md explains them.
        picks: How many first ranks the budget or a stop condition picks.
    """

    def __init__(self, table: pl.DataFrame, picks: int, measure: "_Measure") -> None:
        self.table = table
        self.picks = picks
        self._measure = measure

    @property
    def ids(self) -> list[str]:
        """The ids in rank order."""
        return self.table["sample_id"].to_list()

    def cut(self, at: int | str) -> pl.DataFrame:
        """The rows of the table up to an operating point: a count, or a share such as `"5%"`.

        Raises:
            ConfigError: more rows than there are.
            ValueError: no operating point.
        """
        return self.table.head(OperatingPoint.parse(at).within(self.table.height))

    def ladder(self) -> Ladder:
        """What each per cent covers beside random picks; measured when it is first asked for."""
        return self._measure.ladder

    def plot(self) -> Any:
        """The ladder's picture, a Matplotlib figure."""
        return self.ladder().plot()

    def __len__(self) -> int:
        return self.table.height

    def __repr__(self) -> str:
        return f"Ranking({len(self):,} rows, {self.picks:,} picked)"


class _Measure:
    """What a ladder is measured from; kept, since most callers never ask for it."""

    def __init__(self, vectors: np.ndarray, ranked: Any, arguments: dict[str, Any]) -> None:
        self._vectors, self._ranked, self._arguments = vectors, ranked, arguments

    @cached_property
    def ladder(self) -> Ladder:
        from wtl_core.selection import ladder
        from wtl_core.selection.tables import ladder_table

        measured: Measured = ladder.measure(self._vectors, self._ranked, **self._arguments)
        labelled = self._arguments["labelled"]
        return Ladder(ladder_table(measured), advice=measured.advice, labelled=0 if labelled is None else len(labelled))


def rank(
    vectors: np.ndarray,
    ids: Sequence[str] | None = None,
    *,
    labelled: np.ndarray | None = None,
    labelled_classes: Sequence[Sequence[str] | str | None] = (),
    groups: Sequence[str] | np.ndarray | None = None,
    weights: np.ndarray | None = None,
    frozen: Sequence[int] = (),
    device: str = "cpu",
    **selection: Any,
) -> Ranking:
    """Rank vectors by coverage: every prefix of the ranking is as good as greedy picking of that size.

    Args:
        vectors: (N, D) float16 or float32, a row for each image; scaled to unit length where they are not.
        ids: N distinct texts. They settle ties and feed every draw, so the ranking does not depend on the rows' order.
            Without ids the rows are numbered, and it does where rows tie.
        labelled: (L, D) vectors of images that are labelled already: they cover from the start, and are not ranked.
        labelled_classes: The class, or classes, of each of them; None where not known. They steer the picks.
        groups: (N,) each row's group, for `quotas` and `balance`.
        weights: (N,) how much it matters that each row is covered, from 0.
        frozen: Rows that come first, in this order.
        device: `cpu` or a CUDA device.
        **selection: Keys of the recipe's table `[selection]`, such as `budget="5%"` (see docs/recipe.md).

    Raises:
        ConfigError: a key or value that `[selection]` does not have, or quotas that cannot hold.
        InputError: no rows, wrong shapes, values that are not finite, zero vectors, ids that repeat.

    Cost: 100,000 x 512 in some 20 s on 2 cores.
    """
    from wtl_core.selection import ranking
    from wtl_core.selection.by_regions import ranking as by_regions
    from wtl_core.selection.tables import ranking_table

    if groups is not None and "group_by" not in selection:
        selection = {**selection, "group_by": "groups"}
    recipe = build_recipe({"selection": selection}, name="wtl.rank")
    params = recipe.selection
    rows = np.asarray(vectors)
    names = [f"{row:09d}" for row in range(len(rows))] if ids is None else list(map(str, ids))
    if len(names) != len(rows):
        raise InputError(f"wtl.rank: expected an id for each of {len(rows):,} vectors, found {len(names):,} ids")
    classes = [[given] if isinstance(given, str) else given for given in labelled_classes]
    steering = ranking.Steering(
        weights=weights,
        groups=groups,
        labelled=labelled,
        labelled_classes=classes,
        frozen=np.asarray(frozen, np.int64),
    )
    if len(rows) < params.regions_from:
        ranked = ranking.rank(rows, params, sample_ids=names, steering=steering, device=device)
    else:
        ranked = by_regions.rank_array(rows, params, sample_ids=names, steering=steering, device=device)
    arguments = {
        "params": recipe.ladder,
        "sample_ids": names,
        "scale": ranked.scale * params.scale_factor,
        "kernel": params.kernel,
        "labelled": labelled,
        "groups": groups,
        "device": device,
    }
    table = ranking_table(ranked, pl.DataFrame({"sample_id": names}))
    table = table.insert_column(2, pl.Series("row", ranked.rows))
    return Ranking(table, ranked.picks, _Measure(rows, ranked, arguments))
