"""`wtl plan`: what a refresh would take, in the words of the command line."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from flows.cli.main import cli
from tests.conftest import write_pictures


def told(*arguments: str) -> dict:  # type: ignore[type-arg]
    done = CliRunner().invoke(cli, ["plan", *arguments, "--json"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def test_a_folder_is_planned_and_nothing_is_written(tmp_path: Path) -> None:
    source = write_pictures(tmp_path / "photos", count=8)
    answer = told(str(source), "--encoder", "pixels", "--cores", "2")
    assert answer["work"]["images"] == 8
    assert answer["sample"] == {"opened": 8, "decoded": 8, "refused": 0}
    assert [stage["stage"] for stage in answer["stages"]][:2] == ["plan", "ingest"]
    assert sorted(tmp_path.iterdir()) == [source]


def test_a_billion_images_on_a_cluster_need_no_source(tmp_path: Path) -> None:
    one = told("--images", "1000000000", "--cores", "64", "--gpus", "8")
    sixteen = told("--images", "1000000000", "--cores", "64", "--gpus", "8", "--machines", "16")
    seconds = [{stage["stage"]: stage["seconds"] for stage in answer["stages"]} for answer in (one, sixteen)]
    assert seconds[0]["ingest"] == pytest.approx(16 * seconds[1]["ingest"])
    prices = tmp_path / "prices.toml"
    prices.write_text('currency = "EUR"\ncore_hour = 1\ngpu_hour = 0\ngigabyte_month = 0\n')
    cost = told("--images", "1000000", "--cores", "2", "--prices", str(prices))
    assert cost["cost"]["compute"] == pytest.approx(cost["seconds"] / 3600 * 2)
    assert cost["cost"]["currency"] == "EUR"


def test_the_table_names_each_stage_and_its_sum() -> None:
    done = CliRunner().invoke(cli, ["plan", "--images", "100000", "--cores", "2"])
    assert [line.split()[0] for line in done.stdout.splitlines() if line][4:13] == [
        "stage", "plan", "ingest", "encoder", "embedding", "selection", "report", "in", "cost",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("core_hour = 1", "expected numbers from 0 for gpu_hour, gigabyte_month"),
        ("core_hour = -1\ngpu_hour = 1\ngigabyte_month = 1", "expected numbers from 0 for core_hour"),
        ("core_hour =", "expected a table of prices in TOML"),
    ],
)
def test_wrong_prices_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "prices.toml").write_text(text)
    done = CliRunner().invoke(cli, ["plan", "--images", "10", "--prices", str(tmp_path / "prices.toml")])
    assert message in str(done.exception)


def test_neither_a_source_nor_a_count_is_wrong_use() -> None:
    done = CliRunner().invoke(cli, ["plan"])
    assert done.exit_code == 2
    assert "expected a SOURCE, a workspace whose sources are known, or --images" in done.output
