"""`wtl plan`: what a refresh would take in time, memory, storage and money, from a sample of its source."""

import json
import os
import tomllib
from pathlib import Path
from typing import Any

import click

from flows.cli import terminal
from flows.cli.options import common
from wtl_core.errors import ConfigError
from wtl_core.machine import duration
from wtl_core.recipe import encoder_names
from wtl_core.recipe.recipe import Recipe, parse_recipe
from wtl_core.refresh import forecast
from wtl_core.refresh.forecast import StageForecast
from wtl_core.workspace import marker
from wtl_core.workspace.forecasts import Hardware, Work
from wtl_core.workspace.storage import Store

PRICES = Path(__file__).parents[2] / "deployments" / "prices.toml"
_SHARD = 1000
"""Images in a shard where no source is read."""
_PRICES = ("core_hour", "gpu_hour", "gigabyte_month")


@click.command("plan")
@click.argument("sources", nargs=-1, metavar="[SOURCE]...", type=click.Path())
@click.option(
    "--workspace", "-w", envvar="WTL_WORKSPACE", type=click.Path(), help="Where they would go; it may be new."
)
@click.option("--recipe", "recipe_path", type=click.Path(path_type=Path), help="A TOML file, as for `wtl run`.")
@click.option("--encoder", help=f"One of: {', '.join(encoder_names.FORMS)}.")
@click.option("--machines", type=click.IntRange(1), default=1, show_default=True, help="Machines that share the work.")
@click.option("--cores", type=click.IntRange(1), help="Cores of each; if not given, those of this machine.")
@click.option("--gpus", type=click.IntRange(0), default=0, show_default=True, help="GPUs of each.")
@click.option(
    "--images", type=click.IntRange(1), help="Without a SOURCE: so many images in shards of 1,000; nothing is read."
)
@click.option(
    "--megabytes-per-image", type=click.FloatRange(0, min_open=True), default=0.1, show_default=True, help="Of these."
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
    gpus: int,
    images: int | None,
    megabytes_per_image: float,
    prices: Path | None,
    as_json: bool,
) -> None:
    """Predict what a refresh takes: time, memory, storage, cost.

    Some images of each SOURCE are read and embedded here, which takes half a minute; nothing is written. Rates that
    were measured for each release tell the rest, corrected by what earlier runs of the workspace took.
    """
    if bool(images) == bool(sources or (workspace and not images)):
        raise click.UsageError(
            "expected a SOURCE, a workspace whose sources are known, or --images, found none or both"
        )
    prices = prices or PRICES
    price_table = _read_prices(prices)
    hardware = Hardware(machines=machines, cores=cores or os.cpu_count() or 1, gpus=gpus)
    if images:
        work = _work(images, megabytes_per_image)
        stages = forecast.expected(work, hardware, forecast.shipped_rates())
        found: dict[str, Any] = {"sources": [], "encoder": "package", "sample": None}
    else:
        work, stages, found = _of_sources(sources, workspace, recipe_path, encoder, hardware)
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


def _work(images: int, megabytes: float) -> Work:
    """A first refresh of so many images in shards."""
    return Work(
        objects=-(-images // _SHARD),
        images=images,
        megabytes=images * megabytes,
        to_embed=images,
        pool=images,
        regions_from=Recipe().selection.regions_from,
        network="package",
        is_new_encoder=True,
    )


def _of_sources(
    sources: tuple[str, ...], workspace: str | None, recipe_path: Path | None, encoder: str | None, hardware: Hardware
) -> tuple[Work, list[StageForecast], dict[str, Any]]:
    store = Store(os.devnull) if workspace is None else marker.probe_workspace(workspace)
    try:
        recipe = None if recipe_path is None else parse_recipe(recipe_path.read_text(), name=str(recipe_path))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{recipe_path}: expected a recipe file in TOML: {error}; check the path") from error
    if encoder is not None:
        recipe = (recipe or Recipe()).changed(budget=None, encoder=encoder, name="the command line")
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
    money = f"{cost['compute']:,.2f} {cost['currency']} a refresh, {cost['storage_a_month']:,.2f} a month of storage"
    terminal.say_field("cost", f"{money}, by {prices.name}")
    terminal.say_field("rates", f"{'sample and ' if sample else ''}{answer['rates']}")


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
