"""A workspace that a newer version of wtl has written: what is unknown is kept and passed by, never called corrupt."""

import json
import shutil
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from safetensors.torch import save_file

from tests.conftest import make_jpeg
from tests.plain_refresh import PIXELS, files, ranking, refresh
from wtl_core.encoders import cards
from wtl_core.encoders.networks import NetworkShape, build_network
from wtl_core.encoders.preprocessing import Preprocessing
from wtl_core.errors import ConfigError, CorruptArtifactError
from wtl_core.labelling import cut
from wtl_core.machine import Machine
from wtl_core.pipeline import train_successor
from wtl_core.recipe.recipe import Recipe, parse_recipe, read_recorded
from wtl_core.refresh import planning
from wtl_core.report import status
from wtl_core.upkeep import maintenance
from wtl_core.workspace import commits, lease, ledger, selections
from wtl_core.workspace.marker import FORMAT, MARKER, probe_workspace
from wtl_core.workspace.storage import Store

_NEWER = rf"written by a newer wtl \(format {FORMAT + 1}; this one reads up to {FORMAT}\): update wtl$"


def _change_json(path: Path, **fields: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def _change_recipe(path: Path, **stages: dict[str, Any]) -> None:
    commit = json.loads(path.read_text())
    for stage, fields in stages.items():
        commit["recipe"].setdefault(stage, {}).update(fields)
    path.write_text(json.dumps(commit))


def test_unknown_fields_of_a_commit_are_kept_and_passed_by(source: Path, tmp_path: Path) -> None:
    refresh(tmp_path / "w", source)
    store, path = Store(str(tmp_path / "w")), tmp_path / "w" / "refreshes" / "000001.json"
    _change_json(
        path, format=FORMAT, map="maps/000001.json", encoder_age={"images_then": 1, "images_now": 2, "by_day": [3]}
    )
    last = commits.latest(store)
    assert last is not None
    assert commits.unknown_fields(last) == ["map"]
    written = last.model_dump(mode="json")
    assert (written["map"], written["encoder_age"]["by_day"]) == ("maps/000001.json", [3])
    assert json.loads(path.read_text()).keys() == written.keys()
    assert status.read(store).to_json()["refresh"] == 1
    assert refresh(tmp_path / "w").number == 1  # nothing new: the field changes nothing that this version does
    (source / "more.jpg").write_bytes(make_jpeg(900))
    assert refresh(tmp_path / "w").counts.samples == 65


@pytest.mark.parametrize(
    ("stages", "key"),
    [
        ({"selection": {"new_knob": 3}}, "selection.new_knob"),
        ({"selection": {"kernel": "a-new-one"}}, "selection.kernel"),
        ({"ingest": {"quotas": [{"a": 1}]}}, "ingest.quotas"),
        ({"batches": {"size": 500}}, "batches"),
    ],
)
def test_a_recipe_with_unknown_keys_can_be_read_but_is_not_run_by(
    source: Path, tmp_path: Path, stages: dict[str, dict[str, Any]], key: str
) -> None:
    refresh(tmp_path / "w", source)
    store = Store(str(tmp_path / "w"))
    _change_recipe(tmp_path / "w" / "refreshes" / "000001.json", **stages)
    before = files(tmp_path / "w")
    assert status.read(store).to_json()["refresh"] == 1
    assert len(cut.run(store, "5").rows) == 5
    told = rf"refresh 1 was written by a newer wtl \(this one does not know {key}\): update wtl, or .* --recipe FILE"
    with pytest.raises(ConfigError, match=told):
        planning.base_recipe(store)
    with pytest.raises(ConfigError, match=told):
        refresh(tmp_path / "w", recipe=None)
    with pytest.raises(ConfigError, match="so nothing is deleted: update wtl"):
        maintenance.run(store, keep=1)
    assert files(tmp_path / "w") == before
    again = refresh(
        tmp_path / "w", recipe=PIXELS
    )  # said out loud, it may be left out; the old result is not taken for it
    assert (again.number, commits.unknown_fields(again)) == (2, [])
    assert planning.base_recipe(store) == PIXELS


@pytest.mark.parametrize("tail_from", [0.25, 1.0])
def test_a_workspace_whose_recipe_has_removed_keys_goes_on(source: Path, tmp_path: Path, tail_from: float) -> None:
    refresh(tmp_path / "w", source)
    _change_recipe(
        tmp_path / "w" / "refreshes" / "000001.json", selection={"tail_from": tail_from, "outliers_from": 0.45}
    )
    last = commits.latest(Store(str(tmp_path / "w")))
    assert last is not None
    assert commits.unknown_fields(last) == []
    assert planning.base_recipe(Store(str(tmp_path / "w"))) == PIXELS
    assert refresh(tmp_path / "w", recipe=None).number == 1


def test_a_removed_key_in_a_recipe_of_a_person_is_told_unless_it_asked_for_nothing() -> None:
    assert parse_recipe("[selection]\ntail_from = 0.25\noutliers_from = 0.45", name="r.toml") == Recipe()
    with pytest.raises(ConfigError, match=r"r\.toml: selection: tail_from: expected it to be left out"):
        parse_recipe("[selection]\ntail_from = 1.0", name="r.toml")


def test_a_next_encoder_is_not_trained_by_half_a_recipe(source: Path, tmp_path: Path) -> None:
    refresh(tmp_path / "w", source)
    path = tmp_path / "w" / "refreshes" / "000001.json"
    _change_json(path, encoder_name="ssl")
    _change_recipe(path, encoder={"teacher": "x"})
    with pytest.raises(ConfigError, match=r"does not know encoder\.teacher"):
        train_successor(Store(str(tmp_path / "w")), None, Machine())


def test_a_recipe_file_of_a_person_refuses_unknown_keys_as_ever() -> None:
    with pytest.raises(ConfigError, match=r"unknown key selection\.new_knob"):
        parse_recipe("[selection]\nnew_knob = 3\n", name="r.toml")
    known, unknown = read_recorded(PIXELS.model_dump(mode="json"))
    assert (known, unknown) == (PIXELS, [])


def test_a_format_that_is_too_new_is_refused_in_one_line_and_nothing_is_touched(source: Path, tmp_path: Path) -> None:
    first = refresh(tmp_path / "w", source)
    for name in (MARKER, "refreshes/000001.json", f"{first.selection}/receipt.json"):
        root = tmp_path / name.replace("/", "-")
        shutil.copytree(tmp_path / "w", root)
        _change_json(root / name, format=FORMAT + 1)
        before = files(root)
        with pytest.raises(ConfigError, match=_NEWER) as refused:
            status.read(probe_workspace(str(root)))
        assert "delete" not in str(refused.value)
        assert files(root) == before


def test_a_commit_that_is_none_is_still_called_corrupt(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    for content in (b"", b"[]", b"{}", b'{"recipe": 3}', b'{"recipe": {}}'):
        store.write_bytes("refreshes/000001.json", content)
        with pytest.raises(CorruptArtifactError, match=r"000001\.json: expected a commit"):
            commits.latest(store)


def test_unknown_columns_of_tables_are_passed_by(source: Path, tmp_path: Path) -> None:
    first = refresh(tmp_path / "w", source)
    store = Store(str(tmp_path / "w"))
    ledger.append(store, "labelled", ranking(tmp_path / "w")["sample_id"].head(2).to_list())
    for name in ("ledger/000001.parquet", first.listing, f"{first.selection}/ranking.parquet"):
        pl.read_parquet(tmp_path / "w" / name).with_columns(of_tomorrow=pl.lit(1)).write_parquet(tmp_path / "w" / name)
    assert ledger.read(store).columns == list(ledger.SCHEMA)
    (source / "more.jpg").write_bytes(make_jpeg(900))
    assert refresh(tmp_path / "w").counts.ranked == 63
    assert len(cut.run(store, "5").rows) == 5


def test_unknown_keys_of_receipts_origins_and_leases_are_passed_by(source: Path, tmp_path: Path) -> None:
    first = refresh(tmp_path / "w", source)
    store = Store(str(tmp_path / "w"))
    _change_json(tmp_path / "w" / first.selection / "receipt.json", of_tomorrow=1)
    assert selections.read_receipt(store, first.selection)["of_tomorrow"] == 1
    assert status.read(store).to_json()["ranking"]["advice"]
    cards.save_origin(store, "f" * 64, ["a", "b"])
    _change_json(tmp_path / "w" / "encoders" / ("f" * 64) / "origin.json", of_tomorrow=1)
    assert cards.load_origin(store, "f" * 64) == cards.Origin(2, ["a", "b"])
    with lease.hold(store):
        _change_json(tmp_path / "w" / "lease.json", of_tomorrow=1)
        owner = lease.read_owner(store)
    assert owner is not None
    assert lease.is_alive(owner)


@pytest.mark.parametrize("part", ["network", "preprocessing"])
def test_an_encoder_of_a_newer_form_is_not_called_corrupt(tmp_path: Path, part: str) -> None:
    store, shape = Store(str(tmp_path)), NetworkShape("resnet9", 8)
    weights = build_network(shape).state_dict()
    digest = cards.save_encoder(
        store, weights, shape=shape, preprocessing=Preprocessing(32), number_format="float32", card={}
    )
    place = tmp_path / cards.FOLDER / digest / cards.WEIGHTS
    head = cards.read_head(place.read_bytes())
    assert head is not None
    head[part]["of_tomorrow"] = 1
    save_file({name: value.contiguous() for name, value in weights.items()}, place, {"wtl": json.dumps(head)})
    with pytest.raises(ConfigError, match=r"written by a newer wtl \(.*of_tomorrow.*\): update wtl"):
        cards.load_encoder(store, digest, device=torch.device("cpu"))
