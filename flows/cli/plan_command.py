"""`wtl plan`: what a refresh would take in time, memory, storage and money, from a sample of its source."""

import json
import os
import tomllib
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from flows.cli import terminal
from flows.cli.options import common, given_recipe
from wtl_core.errors import ConfigError
from wtl_core.machine import duration
from wtl_core.recipe import encoder_names
from wtl_core.recipe.recipe import Recipe
from wtl_core.refresh import forecast, planning
from wtl_core.refresh.forecast import StageForecast
from wtl_core.workspace import marker
from wtl_core.workspace.forecasts import Hardware, Work
from wtl_core.workspace.storage import Store

PRICES = Path(__file__).parents[2] / "deployments" / "prices.toml"
_SHARD = 1000
"""Images in a shard where no source is read."""
_MEGABYTES = 0.1
"""Of an image where no source is read."""
_PRICES = ("core_hour", "gpu_hour", "gigabyte_month")


@click.command("plan")
@click.argument("sources", nargs=-1, metavar="[SOURCE]...", type=click.Path())
@click.option(
    "--workspace", "-w", envvar="WTL_WORKSPACE", type=click.Path(), help="Where they would go; it may be new."
)
@click.option("--recipe", "recipe_path", type=click.Path(path_type=Path), help="A TOML file, as for `wtl run`.")
@click.option("--encoder", help=f"One of: {', '.join(encoder_names.FORMS)}.")
@click.option("--machines", type=click.IntRange(1), default=1, show_default=True, help="Machines that share the work.")
@click.option("--cores", type=click.IntRange(1), help="Cores of each; if not given, as `wtl run` uses here.")
@click.option("--gpus", type=click.IntRange(0), help="GPUs of each; if not given, as `wtl run` uses here.")
@click.option(
    "--images", type=click.IntRange(1), help="Without a SOURCE: so many images in shards of 1,000; nothing is read."
)
@click.option(
    "--megabytes-per-image", type=click.FloatRange(0, min_open=True), help=f"Of these; if not given, {_MEGABYTES}."
)
@click.option("--prices", type=click.Path(path_type=Path), help="A TOML file as deployments/prices.toml.")
@common
def plan_command(
    sources: tuple[str, ...],
    workspace: str | None,
    recipe_path: Path | None,
    encoder: str | None,
    machines: int,
    cores: int | None,
    gpus: int | None,
    images: int | None,
    megabytes_per_image: float | None,
    prices: Path | None,
    as_json: bool,
) -> None:
    """Predict what a refresh takes: time, memory, storage, cost.

    Some images of each SOURCE are read and embedded here, which takes half a minute; nothing is written. The other
    rates come with each release, corrected by what earlier runs of the workspace took on such a machine. What is stored
    stays in the workspace; the line `disk` is what a ranking of millions of images keeps there besides until it ends.
    """
    _check_use(sources, workspace, images, megabytes_per_image)
    prices = prices or PRICES
    price_table = _read_prices(prices)
    store = Store(os.devnull) if images or workspace is None else marker.probe_workspace(workspace)
    recipe = given_recipe(store, recipe_path, budget=None, encoder=encoder)
    hardware = _hardware(machines, cores, gpus)
    if images:
        work = _work(recipe, images, megabytes_per_image or _MEGABYTES)
        stages = forecast.expected(work, hardware, forecast.shipped_rates())
        found: dict[str, Any] = {"sources": [], "encoder": recipe.encoder.name, "sample": None}
    else:
        work, stages, found = _of_sources(store, sources, recipe, hardware)
    answer = {
        **found,
        "hardware": hardware.model_dump(),
        "work": work.model_dump(),
        "rates": forecast.shipped_rates().tables["measured"],
        "stages": [vars(one) for one in stages],
        "seconds": sum(one.seconds for one in stages),
        "gib": max(one.gib for one in stages),
        "stored_gib": forecast.stored_gib(stages),
        "cost": _cost(stages, hardware, price_table),
    }
    click.echo(json.dumps(answer)) if as_json else _show(answer, stages, prices)


def _check_use(
    sources: tuple[str, ...], workspace: str | None, images: int | None, megabytes_per_image: float | None
) -> None:
    """Refuse calls that say too little, and options that would do nothing."""
    if (images and sources) or not (images or sources or workspace):
        raise click.UsageError(
            "expected a SOURCE, a workspace whose sources are known, or --images, found none or both"
        )
    if not images and megabytes_per_image is not None:
        raise click.UsageError("--megabytes-per-image: expected --images too, found none; a source tells it by itself")
    given = click.get_current_context().get_parameter_source("workspace")
    if images and given is ParameterSource.COMMANDLINE:
        raise click.UsageError(
            "--workspace: expected a SOURCE beside it, found --images, which foretells a first refresh; leave out one"
        )


def _hardware(machines: int, cores: int | None, gpus: int | None) -> Hardware:
    """What is given, and for the rest what `wtl run` would use of this machine."""
    if cores is None or gpus is None:
        from tasks.settings import machine  # imports torch

        here = forecast.hardware_of(machine())
        cores, gpus = cores or here.cores, here.gpus if gpus is None else gpus
    return Hardware(machines=machines, cores=cores, gpus=gpus)


def _work(recipe: Recipe, images: int, megabytes: float) -> Work:
    """A first refresh of so many images in shards."""
    encoder_names.check_side(recipe.encoder.name, recipe.encoder.side_px)
    return planning.work_of(
        recipe,
        objects=-(-images // _SHARD),
        images=images,
        megabytes=images * megabytes,
        to_embed=images,
        pool=images,
    )


def _of_sources(
    store: Store, sources: tuple[str, ...], recipe: Recipe, hardware: Hardware
) -> tuple[Work, list[StageForecast], dict[str, Any]]:
    terminal.configure_logging()
    terminal.say("plan         reading and embedding a sample", is_message=True)
    from tasks.settings import machine
    from wtl_core.refresh import source_forecast  # imports torch

    made = source_forecast.make(store, sources, recipe, machine(), hardware)
    sample = made.sample
    told = None if sample is None else {name: getattr(sample, name) for name in ("opened", "decoded", "refused")}
    return made.work, made.stages, {"sources": made.sources, "encoder": made.encoder, "sample": told}


def _read_prices(path: Path) -> dict[str, Any]:
    try:
        table = tomllib.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{path}: expected a table of prices in TOML: {error}; deployments/prices.toml is one"
        ) from error
    wrong = [name for name in _PRICES if not isinstance(table.get(name), (int, float)) or table[name] < 0]
    if wrong:
        raise ConfigError(f"{path}: expected numbers from 0 for {', '.join(wrong)}; deployments/prices.toml has them")
    return table


def _cost(stages: list[StageForecast], hardware: Hardware, prices: dict[str, Any]) -> dict[str, Any]:
    """Of one refresh on machines that are paid for its whole duration, and of a month of what it stores."""
    hours = sum(one.seconds for one in stages) / 3600 * hardware.machines
    compute = hours * (hardware.cores * prices["core_hour"] + hardware.gpus * prices["gpu_hour"])
    stored = forecast.stored_gib(stages) * 1.073741824 * prices["gigabyte_month"]
    return {"compute": compute, "storage_a_month": stored, "currency": str(prices.get("currency", ""))}


def _show(answer: dict[str, Any], stages: list[StageForecast], prices: Path) -> None:
    work, hardware, sample, cost = (answer[name] for name in ("work", "hardware", "sample", "cost"))
    terminal.say_field("source", ", ".join(answer["sources"]) or "none, nothing was read")
    about = "about " if sample or not answer["sources"] else ""
    images = f"{about}{work['images']:,} new, {_size(work['megabytes'] * 1e6)} in {work['objects']:,} objects"
    if work["pool"] != work["images"]:
        images += f"; {work['pool']:,} in the pool then"
    terminal.say_field("images", images)
    if sample:
        refused = f", {sample['refused']:,} are refused" if sample["refused"] else ""
        terminal.say_field("sample", f"{sample['decoded']:,} images of {sample['opened']:,} objects{refused}")
    terminal.say_field("encoder", answer["encoder"])
    each = f"{hardware['cores']} cores" + (f" and {hardware['gpus']} GPUs" if hardware["gpus"] else "")
    terminal.say_field("machine", each if hardware["machines"] == 1 else f"{hardware['machines']} of {each}")
    terminal.say()
    terminal.say(f"{'stage':<12} {'time':>9} {'memory':>9} {'stored':>9}")
    for one in stages:
        _say_row(one.stage, one.seconds, one.gib, one.stored_bytes)
    _say_row("in all", answer["seconds"], answer["gib"], answer["stored_gib"] * 2**30)
    terminal.say()
    if passing := sum(one.passing_bytes for one in stages):
        terminal.say_field("disk", f"{_size(passing)} more in the workspace until the ranking ends")
    money = f"{cost['compute']:,.2f} {cost['currency']} a refresh, {cost['storage_a_month']:,.2f} a month of storage"
    terminal.say_field("cost", f"{money}, by {prices.name}")
    terminal.say_field("rates", f"{'of the sample; the others: ' if sample else ''}{answer['rates']}")


def _say_row(name: str, seconds: float, gib: float, stored: float) -> None:
    memory = f"{gib:.1f} GiB" if gib else ""
    row = f"{name:<12} {duration(seconds):>9} {memory:>9} {_size(stored) if stored else '':>9}"
    terminal.say(row.rstrip())


def _size(count: float) -> str:
    for unit in ("MB", "GB"):
        count /= 1000 if unit == "GB" else 1e6
        if count < 1000:
            return f"{count:,.1f} {unit}"
    return f"{count / 1000:,.1f} TB"
