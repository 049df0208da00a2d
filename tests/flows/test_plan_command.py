"""`wtl plan`: what a refresh would take, in the words of the command line."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from flows.cli.main import cli
from tests.conftest import TINY, write_pictures
from tests.flows.conftest import Wtl
from tests.plain_refresh import refresh
from wtl_core.recipe.recipe import Recipe


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


def test_without_cores_and_gpus_it_plans_for_what_a_run_would_use_here(wtl_here: Wtl) -> None:
    done = wtl_here("plan", "--images", 1000, "--json", env={"WTL_WORKERS": "3", "WTL_DEVICE": "cpu"})
    assert json.loads(done.stdout)["hardware"] == {"machines": 1, "cores": 3, "gpus": 0}


def test_images_that_are_not_there_yet_are_planned_by_a_recipe(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text("[ingest]\nstore = 'reference'\n[selection]\nregions_from = 5000000\n")
    asked = ("--images", "2000000", "--cores", "2", "--gpus", "0")
    plain, given = told(*asked), told(*asked, "--recipe", str(tmp_path / "recipe.toml"), "--encoder", "pixels")
    assert (plain["work"]["network"], given["work"]["network"]) == ("package", "pixels")
    assert (plain["encoder"], given["encoder"]) == ("auto", "pixels")
    assert plain["stored_gib"] - given["stored_gib"] == pytest.approx(2_000_000 * 0.1e6 / 2**30)
    assert [answer["stages"][-2]["passing_bytes"] > 0 for answer in (plain, given)] == [True, False]


def test_a_plan_by_another_encoder_keeps_the_rest_of_the_workspaces_recipe(tmp_path: Path) -> None:
    source, recipe = write_pictures(tmp_path / "photos", count=8), {"ingest": {"thumbnail_px": 64}, **TINY}
    refresh(tmp_path / "w", source, recipe=Recipe.model_validate(recipe))
    answer = told("-w", str(tmp_path / "w"), "--encoder", "pixels", "--cores", "2", "--gpus", "0")
    assert answer["work"]["images"] == 0  # other thumbnails would have every image read again


def test_what_a_ranking_by_regions_has_on_disk_is_told() -> None:
    done = CliRunner().invoke(cli, ["plan", "--images", "10000000", "--cores", "2", "--gpus", "0"])
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("disk")]
    assert line.endswith(" GB more in the workspace until the ranking ends")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--images", "10", "-w", "workspace"], "--workspace: expected a SOURCE beside it, found --images"),
        (["photos", "--megabytes-per-image", "2"], "--megabytes-per-image: expected --images too"),
        (["photos", "--images", "10"], "found none or both"),
    ],
)
def test_options_that_would_do_nothing_are_refused(arguments: list[str], message: str) -> None:
    done = CliRunner().invoke(cli, ["plan", *arguments])
    assert done.exit_code == 2
    assert message in " ".join(done.output.split())


def test_a_workspace_of_the_environment_does_not_stand_in_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WTL_WORKSPACE", "/nowhere")
    assert told("--images", "1000", "--cores", "2", "--gpus", "0")["work"]["images"] == 1000


def test_neither_a_source_nor_a_count_is_wrong_use() -> None:
    done = CliRunner().invoke(cli, ["plan"])
    assert done.exit_code == 2
    assert "expected a SOURCE, a workspace whose sources are known, or --images" in done.output
