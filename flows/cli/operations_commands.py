"""The commands of operations: `up`, `down`, `deploy`, `train-encoder`, `maintain`, `doctor`."""

import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import click

from flows.cli import terminal
from flows.cli.options import common, workspace_option
from flows.serving import flow_process, up
from flows.serving.server import CLIENT_PASSWORD, Place
from flows.serving.site_values import Site, read_site
from tasks.workspaces import open_for_refresh
from wtl_core.errors import ConfigError
from wtl_core.recipe.encoder import EncoderParams
from wtl_core.recipe.recipe import build_recipe
from wtl_core.refresh import planning
from wtl_core.refresh.sources import with_known
from wtl_core.upkeep import doctor
from wtl_core.workspace import marker
from wtl_core.workspace.storage import Store

_state_option = click.option(
    "--state",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="WTL_STATE",
    default=Path(up.DEFAULT_STATE),
    show_default=True,
    help="Folder of the server's database and logs; never inside a workspace.",
)


def _site_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(
        [
            click.argument("sources", nargs=-1, metavar="[SOURCE]..."),
            click.option("--workspace", "-w", envvar="WTL_WORKSPACE", help="A folder or s3:// prefix."),
            click.option(
                "--site", "site_path", type=click.Path(path_type=Path), help="Default: deployments/site.toml."
            ),
        ]
    ):
        command = option(command)
    return command


def _site(sources: tuple[str, ...], workspace: str | None, site_path: Path | None) -> Site:
    site = read_site(site_path, workspace=workspace, sources=list(sources))
    name_both = "name both: `SOURCE... --workspace DIR`, or `sources` and `workspace` in a file given by --site"
    if not site.workspace:
        raise ConfigError(f"expected a workspace and the sources to watch, found no workspace; {name_both}")
    if not site.sources and not with_known(open_for_refresh(site.workspace), []):
        raise ConfigError(
            f"{site.workspace_uri}: expected the sources to watch, found none named and none that the workspace knows; "
            + name_both
        )
    return site


@click.command("up")
@_site_options
@_state_option
@click.option("--host", default="127.0.0.1", show_default=True, help="Where the server listens.")
@click.option("--port", default=4200, show_default=True, type=click.IntRange(1, 65535))
@click.option("--detach", is_flag=True, help="Return when all is started; `wtl down` ends it.")
@common
def up_command(
    sources: tuple[str, ...],
    workspace: str | None,
    site_path: Path | None,
    state: Path,
    host: str,
    port: int,
    detach: bool,
    as_json: bool,
) -> None:
    """Watch SOURCEs with a server, until Ctrl-C.

    Starts server, worker and deployments, and refreshes the workspace when something arrives. The server keeps its data
    in SQLite, or in the PostgreSQL that WTL_DATABASE_URL names (postgresql+asyncpg://user:password@host/database). If
    other machines can reach --host, the server asks for a password: the one in PREFECT_SERVER_API_AUTH_STRING
    (user:password), or a random one, which is printed and kept in --state.
    """
    site = _site(sources, workspace, site_path)
    place = Place(state.expanduser().absolute(), host, port, os.environ.get("WTL_DATABASE_URL"))
    made = place.password_file
    answer = {
        "ui": place.address,
        "state": str(place.folder),
        "site": site.name,
        "workspace": site.workspace_uri,
        "password_file": None if made is None else str(made),
    }
    say = partial(click.echo, err=as_json)

    def say_password() -> None:
        if made is not None:
            say(f"password     the server asks for one, kept in {made}; the pages ask for it, too. For other clients:")
            # shown to a person alone: what is written to a pipe or a service's log stays there for others to read
            password = made.read_text().strip() if sys.stdout.isatty() else f"$(cat {made})"
            say(f"             export PREFECT_API_URL={place.address}/api {CLIENT_PASSWORD}={password}")

    if detach:
        arguments = [*sources, "--state", str(place.folder), "--host", host, "--port", str(port)]
        arguments += ["--workspace", workspace] if workspace else []
        arguments += ["--site", str(site_path)] if site_path else []
        up.detach(place, site, arguments, say=say)
        say_password()
        if as_json:
            click.echo(json.dumps(answer))
        return
    ready = os.environ.pop("WTL_UP_READY", None)

    def say_ready() -> None:
        if ready:  # the process that detached this one says it: the log is no place for a password
            Path(ready).touch()
            return
        say_password()
        click.echo(json.dumps(answer) if as_json else "Ctrl-C ends all of it")

    try:
        up.run(place, site, say=say, on_ready=say_ready)
    except KeyboardInterrupt:
        say("down         all that was started has ended")


@click.command("down")
@_state_option
@common
def down_command(state: Path, as_json: bool) -> None:
    """End what `wtl up --detach` started."""
    folder = state.expanduser().absolute()
    was_up = up.down(folder)
    if as_json:
        click.echo(json.dumps({"was_up": was_up}))
        return
    nothing = f"nothing was up with its state in {folder}; --state names another folder"
    click.echo(f"down         {'all that was started has ended' if was_up else nothing}")


@click.command("deploy")
@_site_options
@click.option(
    "--pool-type", default="process", show_default=True, help="Type of the work pool, if it is made by this call."
)
@common
def deploy_command(
    sources: tuple[str, ...],
    workspace: str | None,
    site_path: Path | None,
    pool_type: str,
    as_json: bool,
) -> None:
    """Apply deployments to a Prefect server.

    PREFECT_API_URL names the server; the site's file (--site) says which deployments.
    """
    if not os.environ.get("PREFECT_API_URL"):
        raise ConfigError("PREFECT_API_URL: expected the server's address, such as http://127.0.0.1:4200/api; set it")
    site = _site(sources, workspace, site_path)
    from flows.serving.deploying import deploy

    deploy(site, pool_type=pool_type)
    if as_json:
        click.echo(json.dumps({"site": site.name, "work_pool": site.work_pool, "workspace": site.workspace_uri}))
        return
    click.echo(f"deployments  refresh-{site.name}, watch-{site.name} and others, in work pool {site.work_pool}")


@click.command("train-encoder")
@workspace_option
@click.option("--seconds", type=float, help="Wall-clock budget of training.")
@click.option("--start", help="An encoder trained earlier to continue from; with the encoder `ssl`.")
@click.option("--seed", type=int, help="Seed of weights, order of images and random views; with the encoder `ssl`.")
@common
def train_encoder_command(
    workspace: str, seconds: float | None, start: str | None, seed: int | None, as_json: bool
) -> None:
    """Train the workspace's next encoder.

    The workspace is then refreshed with it; until the refresh ends, the old ranking stays in force.
    """
    params = next_params(marker.open_workspace(workspace), seconds=seconds, start=start, seed=seed)
    terminal.configure_logging()
    wait_for_server = flow_process.prepare()
    from flows.train_encoder import train_encoder

    wait_for_server()
    result = train_encoder(workspace, params)
    click.echo(result.model_dump_json() if as_json else f"encoder      {result.encoder} has taken over")


def next_params(store: Store, **given: Any) -> EncoderParams:
    """The last recipe's encoder, with the flags' fields set; epochs, which would win over `--seconds`, go with it.

    Raises:
        ConfigError: a flag that this encoder makes no use of.
    """
    last = planning.base_recipe(store).encoder.model_dump()
    used = {"ssl": ("seconds", "start", "seed"), "auto": ("seconds",)}.get(last["name"], ())
    if unused := [f"--{name}" for name, value in given.items() if value is not None and name not in used]:
        told = f"expected options that the encoder {last['name']!r} makes use of, found {' and '.join(unused)}"
        raise ConfigError(f"{store.root}: {told}; leave out, or refresh with the encoder `ssl` first")
    if given["seconds"] is not None:
        last["epochs"] = None
    values = {**last, **{key: value for key, value in given.items() if value is not None}}
    return build_recipe({"encoder": values}, name="the command line").encoder.with_absolute_paths()


@click.command("maintain")
@workspace_option
@click.option("--keep", default=10, show_default=True, type=click.IntRange(1), help="Refreshes that stay whole.")
@click.option(
    "--keep-days",
    default=7.0,
    show_default=True,
    type=click.FloatRange(0),
    help="Days for which old versions of tables and unfinished trainings are kept.",
)
@common
def maintain_command(workspace: str, keep: int, keep_days: float, as_json: bool) -> None:
    """Delete what the last refreshes do not need.

    The last `--keep` refreshes stay whole and can be replayed. Of older ones only commit and receipt stay, as a record;
    their image parts, rankings, ladders, reports and encoders are deleted. Tables are compacted. No result changes.
    """
    marker.open_workspace(workspace)  # refuses a name without a workspace before anything starts
    terminal.configure_logging()
    wait_for_server = flow_process.prepare()
    from flows.maintain import maintain

    wait_for_server()
    result = maintain(workspace, keep=keep, keep_days=keep_days)
    if as_json:
        click.echo(json.dumps(asdict(result)))
        return
    deleted = ", ".join(f"{count:,} of {name}" for name, count in result.deleted.items() if count) or "nothing"
    click.echo(f"deleted      {deleted}")
    click.echo(
        f"vectors      {result.vectors_dropped:,} dropped; {result.tables_compacted} tables compacted, "
        f"{result.tables_dropped} dropped"
    )


@click.command("doctor")
@click.option("--workspace", "-w", envvar="WTL_WORKSPACE", help="Look at this workspace too.")
@common
def doctor_command(workspace: str | None, as_json: bool) -> None:
    """Show what this machine can do, and what is missing."""
    found = doctor.examine(workspace)
    click.echo(json.dumps(found.to_json())) if as_json else terminal.show_doctor(found)
    if not found.is_good:
        raise ConfigError("something is missing; the lines marked FAIL say what to do")
