"""`wtl run`: plans first, then imports what the work needs; Prefect only where a run can be seen or takes long."""

import gc
import json
from pathlib import Path

import click

from flows.cli import terminal
from flows.cli.options import common, given_recipe, workspace_option
from flows.serving import flow_process
from tasks.settings import check_engine
from wtl_core.recipe import encoder_names
from wtl_core.recipe.recipe import Recipe
from wtl_core.refresh import planning
from wtl_core.report import summary
from wtl_core.report.summary import Summary
from wtl_core.workspace import marker
from wtl_core.workspace.storage import Store


def _complete_encoder(context: click.Context, option: click.Parameter, begun: str) -> list[str]:
    """What the shell completes the beginning of an encoder's name to."""
    return [word for word in encoder_names.BEGINNINGS if word.startswith(begun)]


@click.command("run")
@click.argument("sources", nargs=-1, metavar="[SOURCE]...", type=click.Path())
@workspace_option
@click.option(
    "--recipe",
    "recipe_path",
    type=click.Path(path_type=Path),
    help="A TOML file; if not given, the recipe of the last run.",
)
@click.option("--budget", help="How many images are picks: 500 or 10%.")
@click.option("--encoder", shell_complete=_complete_encoder, help=f"One of: {', '.join(encoder_names.FORMS)}.")
@click.option("--allow-removal", is_flag=True, help="Go on although more than half of a source has vanished.")
@click.option("--forget", multiple=True, metavar="SOURCE", help="Drop a known SOURCE and its images; repeatable.")
@common
def run_command(
    sources: tuple[str, ...],
    workspace: str,
    recipe_path: Path | None,
    budget: str | None,
    encoder: str | None,
    allow_removal: bool,
    forget: tuple[str, ...],
    as_json: bool,
) -> None:
    """Refresh a workspace from whatever changed in its SOURCEs.

    A SOURCE is a folder, an s3:// prefix, a tar, zip or Parquet shard, or a list of URIs. Without one, all known
    sources are read again. If nothing is new, nothing is written.
    """
    terminal.say(
        f"run          {', '.join(sources) or 'all known sources'} into workspace {workspace}", is_message=True
    )
    terminal.configure_logging()
    check_engine()
    store = marker.probe_workspace(workspace)
    recipe = given_recipe(store, recipe_path, budget=budget, encoder=encoder)
    planned = planning.plan(store, sources, recipe, allow_removal=allow_removal, forget=forget)
    if planned.is_noop and planned.last is not None:
        result = summary.summary(store, planned.last, is_new=False)
    else:
        marker.check_writable(store)
        is_plain = planned.is_light and not flow_process.is_watched()
        with planning.handed_over(planned):
            result = (_run_plainly if is_plain else _run_flow)(
                store,
                list(sources),
                recipe,
                allow_removal=allow_removal,
                forget=list(forget),
            )
    if as_json:
        click.echo(json.dumps(result.model_dump(mode="json")))
    elif planned.is_noop and planned.last is not None:
        terminal.show_unchanged(result, number=planned.last.number, created=planned.last.created)
    else:
        terminal.show_run(result, workspace)


def _run_plainly(
    store: Store, sources: list[str], recipe: Recipe, *, allow_removal: bool, forget: list[str]
) -> Summary:
    """The same stages without Prefect: a server of its own would start and end with seconds of work that nobody sees.

    That is half the time of such a run. What transient errors need retries for, a bucket, has no part in it.
    """
    gc.disable()  # imports make a million objects that stay
    from tasks import progress_display
    from tasks.settings import machine
    from wtl_core import pipeline

    this_machine = machine()
    gc.freeze()
    gc.enable()
    stage = progress_display.stage
    done = pipeline.refresh_workspace(
        store, sources, recipe, this_machine, allow_removal=allow_removal, forget=forget, stage=stage
    )
    return summary.summary(store, done, is_new=True)


def _run_flow(store: Store, sources: list[str], recipe: Recipe, *, allow_removal: bool, forget: list[str]) -> Summary:
    """Run the flow in this process, on the server that PREFECT_API_URL names or on one of its own."""
    wait_for_server = flow_process.prepare()
    from flows.refresh import refresh as refresh_flow  # imports prefect and torch

    wait_for_server()
    result: Summary = refresh_flow(store.root, sources, recipe, allow_removal, forget=forget)
    return result
