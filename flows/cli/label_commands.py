"""`wtl labels` and `wtl similar`: marking images as labelled, and finding images like a given one."""

import json
from pathlib import Path

import click

from flows.cli import terminal
from flows.cli.options import common, workspace_option
from wtl_core.errors import ConfigError
from wtl_core.labelling import labels, sample_names
from wtl_core.workspace import commits, lease, marker


@click.group("labels")
def labels_group() -> None:
    """Mark images as labelled."""


@labels_group.command("add")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--column", help="Title of the column that names images, if it is another one.")
@workspace_option
@common
def add_command(file: Path, column: str | None, workspace: str, as_json: bool) -> None:
    """Mark the images that FILE names as labelled.

    FILE is a table (CSV, TSV, Parquet, JSON lines, a JSON list) with a column such as sample_id, path or filename, a
    JSON list of names, COCO's JSON, or plain text with one name a line. A name is a sample id, a path or its end, or
    the key of a member. The next run shapes its picks by these images and ranks the rest.
    """
    store = marker.open_workspace(workspace)
    with lease.hold(store):
        added = labels.add(store, file, column)
    if as_json:
        click.echo(json.dumps(added.to_json()))
    else:
        click.echo(f"{added.named:,} named, {added.added:,} added to the ledger; `wtl run` ranks the rest anew")


@click.command("similar")
@click.argument("image")
@click.option("--count", "-n", default=10, show_default=True, type=click.IntRange(1, 1000), help="Images to show.")
@workspace_option
@common
def similar_command(image: str, count: int, workspace: str, as_json: bool) -> None:
    """Show images like IMAGE, nearest first.

    IMAGE is a sample's id or the first characters of it, or its path, URI or key as `wtl labels add` takes them.
    """
    from wtl_core.embedding import similar  # imports lancedb

    store = marker.open_workspace(workspace)
    last = commits.latest(store)
    if last is None:
        raise ConfigError(f"{workspace}: expected vectors, found none yet; `wtl run SOURCE` makes some")
    rows = similar.run(store, last, sample_names.find(store, image), count=count)
    if as_json:
        click.echo(json.dumps({"similar": rows}))
        return
    for row in rows:
        terminal.say(f"{row['similarity']:.4f}  {row['sample_id'][:16]}  {row['uri']}")
