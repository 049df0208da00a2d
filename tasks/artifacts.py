"""What a run shows in the Prefect UI: the stage table, the ladder as a table and a picture, the first picks."""

import base64
import html

from prefect.artifacts import create_image_artifact, create_markdown_artifact, create_table_artifact

from wtl_core import selections
from wtl_core.commits import Commit
from wtl_core.report import charts
from wtl_core.selections import SelectionRef
from wtl_core.storage import Store

_PERCENTS = (1, 2, 5, 10, 20, 50)
_PICKS = 50


def publish_stages(store: Store, commit: Commit) -> None:
    """Row accounts and seconds by stage, and where the report lies."""
    accounts = [{"what": name, "count": f"{count:,}"} for name, count in commit.counts.items()]
    create_table_artifact(key="accounts", table=accounts, description=f"Refresh {commit.number}: row accounts")
    times = [{"stage": stage, "seconds": seconds} for stage, seconds in commit.seconds.items()]
    create_table_artifact(key="stages", table=times, description=f"Refresh {commit.number}: seconds by stage")
    where = html.escape(store.path(commit.report))
    create_markdown_artifact(
        key="report",
        markdown=f"# Refresh {commit.number}\n\n{charts.headline(commit)}\n\nReport: `{where}`",
        description="Where the report of this refresh lies",
    )


def publish_ladder(store: Store, selection: SelectionRef) -> None:
    """Coverage against random: a picture, and a table at the per cents that people ask for."""
    rungs = selections.read_ladder(store, selection.key)
    picture = base64.b64encode(charts.ladder_png(rungs)).decode()
    create_image_artifact(
        key="ladder-picture", image_url=f"data:image/png;base64,{picture}", description="Coverage against random"
    )
    shown = [row for row in rungs.to_dicts() if row["percent"] in _PERCENTS]
    names = ("percent", "count", "coverage", "random_coverage_mean", "equivalent_random_count")
    table = [{name: round(row[name], 4) for name in names} for row in shown]
    create_table_artifact(key="ladder", table=table, description="Coverage at each operating point, beside random's")


def publish_picks(store: Store, selection: SelectionRef) -> None:
    """The first picks. File names come from outside, so they are escaped."""
    head = selections.read_ranking(store, selection.key).head(_PICKS)
    rows = [
        {
            "rank": row["rank"],
            "uri": html.escape(row["uri"]),
            "gain": round(row["gain"], 6),
            "coverage": round(row["coverage"], 4),
        }
        for row in head.to_dicts()
    ]
    create_table_artifact(key="picks", table=rows, description=f"The first {len(rows)} of {selection.rows:,} ranked")
