"""`wtl labels` and `wtl similar`: what people tell about single images, and ask about them."""

import json
from pathlib import Path

import click

from flows.cli import terminal
from flows.cli.options import common, open_workspace, workspace_option
from wtl_core.errors import ConfigError
from wtl_core.labelling import labels
from wtl_core.workspace import commits, lease


@click.group("labels")
def labels_group() -> None:
    """Tell which images are labelled."""


@labels_group.command("add")
@click.argument("file", type=click.Path(path_type=Path))
@workspace_option
@common
def add_command(file: Path, workspace: str, as_json: bool, debug: bool) -> None:
    """Mark the samples that FILE names (ids, paths or keys) as labelled; the next run shapes its picks by them."""
    store = open_workspace(workspace)
    with lease.hold(store):
        counts = labels.add(store, file)
    if as_json:
        click.echo(json.dumps(counts))
    else:
        click.echo(f"{counts['named']:,} named, {counts['added']:,} added to the ledger; `wtl run` ranks the rest anew")


@click.command("similar")
@click.argument("image")
@click.option("--count", "-n", default=10, show_default=True, type=click.IntRange(1, 1000), help="Images to show.")
@workspace_option
@common
def similar_command(image: str, count: int, workspace: str, as_json: bool, debug: bool) -> None:
    """Images like IMAGE of the pool, nearest first.

    IMAGE is a sample's id or the first characters of it, or its path, URI or key as `wtl labels add` takes them.
    """
    from wtl_core.embedding import similar  # imports lancedb

    store = open_workspace(workspace)
    last = commits.latest(store)
    if last is None:
        raise ConfigError(f"{workspace}: expected vectors, found none yet; `wtl run SOURCE` makes some")
    rows = similar.run(store, last, labels.find(store, image), count=count)
    if as_json:
        click.echo(json.dumps({"similar": rows}))
        return
    for row in rows:
        terminal.say(f"{row['similarity']:.4f}  {row['sample_id'][:16]}  {row['uri']}")
