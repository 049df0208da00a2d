"""The command `wtl benchmark`. It reads its options and checks them before torch or prefect is imported."""

import json
import shlex
import sys
import tomllib
from pathlib import Path
from typing import Any

import click
from pydantic import ValidationError

from flows.cli import terminal
from flows.cli.options import common
from flows.serving import flow_process
from wtl_core.benchmark.params import STRATEGIES, BenchmarkParams, can_run, check_installed
from wtl_core.errors import ConfigError
from wtl_core.recipe.base import message_of

_LISTS = ("strategies", "budgets", "pools", "judges")


@click.command("benchmark")
@click.argument("dataset")
@click.option("--output", "-o", help="A local folder; a rerun finds its finished cells.  [default: benchmark-DATASET]")
@click.option("--strategies", help=f"Comma-separated, out of {', '.join(STRATEGIES)}; or `all`.")
@click.option("--budgets", help="Comma-separated operating points: 500,1000 or 1%,5%.")
@click.option("--pools", help="Comma-separated, out of balanced, long-tail, bursts, long-tail-bursts, outliers.")
@click.option("--judges", help="Comma-separated, out of nearest, probe, scratch.")
@click.option(
    "--seeds", type=click.IntRange(2, 1000), help="How often all is repeated; strategies are compared within a seed."
)
@click.option("--encoder", help="The encoder that makes the vectors; ssl is trained on the training split.")
@click.option("--vectors", type=click.Path(path_type=Path), help="A folder of .npy vectors instead of an encoder.")
@click.option("--params", "params_path", type=click.Path(path_type=Path), help="A TOML file with any parameter.")
@common
def benchmark_command(
    dataset: str, output: str | None, params_path: Path | None, vectors: Path | None, as_json: bool,
    **flags: Any,
) -> None:  # fmt: skip
    """Compare strategies on a labelled set.

    It measures accuracy over the share of images that are labelled, beside random picks and active learning. DATASET is
    a folder with a folder for each class (below train and test, or split by this command), Parquet with image and
    label, a folder of idx files, torchvision:NAME, or sklearn:digits.
    """
    terminal.configure_logging()
    params = read_params(params_path, flags)
    if "://" in (output or ""):
        raise ConfigError(f"{output}: expected a local folder for a benchmark; name one")
    folder = Path(output or f"benchmark-{Path(dataset).resolve().name.replace(':', '-')}").absolute()
    wait_for_server = flow_process.prepare()
    from flows.benchmark import benchmark  # imports prefect and torch

    wait_for_server()
    command = shlex.join(["wtl", *sys.argv[1:]])
    held = None if vectors is None else str(vectors.absolute())
    result: dict[str, Any] = benchmark(dataset, str(folder), params, held, command)
    result = {"output": str(folder), **result}
    if as_json:
        click.echo(json.dumps(result))
        return
    for sentence in result["sentences"]:
        click.echo(sentence)
    click.echo(f"page         {folder / result['html']}")


def read_params(path: Path | None, flags: dict[str, Any]) -> BenchmarkParams:
    """The file's parameters, with the flags' set; torch-free.

    Raises:
        ConfigError: the file cannot be read, a value is unknown or out of range, or a strategy's package is missing.
    """
    try:
        values = {} if path is None else tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: expected a file of parameters in TOML: {error}; correct it there") from error
    for name, value in flags.items():
        if value is not None:
            values[name] = [part.strip() for part in value.split(",")] if name in _LISTS else value
    if values.get("strategies") == ["all"]:
        values["strategies"] = _all_that_run()
    try:
        params = BenchmarkParams.model_validate(values)
    except ValidationError as error:
        mistakes = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'parameters'}: {message_of(e)}" for e in error.errors())
        raise ConfigError(f"benchmark: {mistakes}; change the option or the file") from error
    check_installed(params.strategies)
    return params


def _all_that_run() -> list[str]:
    missing = [name for name in STRATEGIES if not can_run(name)]
    if missing:
        click.echo(f"left out     {', '.join(missing)}: pip install lightly-mundig to have it compared too", err=True)
    return [name for name in STRATEGIES if name not in missing]
