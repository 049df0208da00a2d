"""`wtl.rank`: the engine without a workspace."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

import wtl
from wtl_core.recipe.selection import SelectionParams
from wtl_core.selection import ranking

RNG = np.random.default_rng(0)
VECTORS = RNG.normal(size=(300, 16)).astype(np.float32)
IDS = [f"image-{row}" for row in range(300)]


def test_it_ranks_as_the_core_does() -> None:
    mine = wtl.rank(VECTORS, IDS, budget="5%")
    theirs = ranking.rank(VECTORS, SelectionParams(budget="5%"), sample_ids=IDS)
    assert mine.table["row"].to_list() == theirs.rows.tolist()
    assert mine.ids == [IDS[row] for row in theirs.rows]
    assert (mine.picks, len(mine)) == (15, 300)
    assert mine.table.columns[:3] == ["rank", "sample_id", "row"]


def test_order_of_rows_means_nothing_where_there_are_ids() -> None:
    order = RNG.permutation(300)
    again = wtl.rank(VECTORS[order], [IDS[row] for row in order])
    assert again.ids == wtl.rank(VECTORS, IDS).ids


def test_many_rows_are_ranked_by_regions(tmp_path: Path) -> None:
    """Also where the array is a file that cannot be written to."""
    np.save(tmp_path / "vectors.npy", VECTORS)
    mapped = np.load(tmp_path / "vectors.npy", mmap_mode="r")
    by_regions = wtl.rank(mapped, IDS, regions_from=300, region_size=100, head=0)
    at_once = wtl.rank(VECTORS, IDS, regions_from=301, region_size=100)
    assert sorted(by_regions.ids) == sorted(at_once.ids)
    assert by_regions.ids != at_once.ids
    assert by_regions.ladder().table["coverage"][9] >= 0.97 * at_once.ladder().table["coverage"][9]
    with pytest.raises(wtl.ConfigError, match="objective 'random': expected coverage or probability-coverage for 300"):
        wtl.rank(VECTORS, IDS, regions_from=300, objective="random")


def test_prefixes_and_ladder() -> None:
    ranked = wtl.rank(VECTORS)
    assert ranked.cut("10%").height == 30
    assert_frame_equal(ranked.cut(5), ranked.table.head(5))
    ladder = ranked.ladder()
    assert ladder.table["count"].to_list()[-1] == 300
    assert ladder.table["coverage"][9] > ladder.table["random_coverage_mean"][9]
    assert ranked.ladder() is ladder
    assert ladder.at(30).labels == 30
    with pytest.raises(wtl.ConfigError, match="expected at most the 300 images"):
        ranked.cut(301)
    with pytest.raises(ValueError, match="expected a count above 0 or a percentage"):
        ranked.cut("most")


def test_labels_weights_groups_and_frozen_rows_steer() -> None:
    labelled = wtl.rank(VECTORS[:200], IDS[:200], labelled=VECTORS[200:], labelled_classes=["a", "b"] * 50)
    assert len(labelled) == 200
    assert labelled.ids != [name for name in wtl.rank(VECTORS, IDS).ids if name in set(IDS[:200])]
    weights = np.ones(300)
    weights[:290] = 0
    assert set(wtl.rank(VECTORS, IDS, weights=weights).ids[:10]) == set(IDS[290:])
    assert wtl.rank(VECTORS, IDS, frozen=[7, 3]).ids[:2] == [IDS[7], IDS[3]]
    groups = ["night" if row < 30 else "day" for row in range(300)]
    night = wtl.rank(VECTORS, IDS, groups=groups, budget=20, quotas=[{"group": "night", "minimum": 10}])
    assert sum(groups[row] == "night" for row in night.cut(20)["row"]) >= 10


def test_wrong_input_is_told_in_a_sentence() -> None:
    with pytest.raises(wtl.InputError, match="expected an id for each of 300 vectors, found 2 ids"):
        wtl.rank(VECTORS, ["a", "b"])
    with pytest.raises(wtl.ConfigError, match=r"wtl\.rank: .*bugdet.*budget"):
        wtl.rank(VECTORS, bugdet=5)
    with pytest.raises(wtl.InputError):
        wtl.rank(np.full((3, 4), np.nan, np.float32))
    assert isinstance(wtl.rank(VECTORS).table, pl.DataFrame)
