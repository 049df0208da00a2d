"""Names of runs say what happened, in numbers that a person reads."""

import pytest

from tasks.prefect_side import run_names
from wtl_core.upkeep.maintenance import Maintained


@pytest.fixture
def named(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    names: list[str] = []
    monkeypatch.setattr(run_names, "rename", names.append)
    return names


def test_a_training_is_named_after_network_images_and_time(named: list[str]) -> None:
    card = {
        "method": "contrastive",
        "plan": {"shape": {"kind": "resnet9"}},
        "images": 12_408,
        "seconds_since_last_start": 299.6,
    }
    run_names.name_training(card, is_new=True)
    run_names.name_training({**card, "seconds_since_last_start": 42.0}, is_new=True)
    run_names.name_training({**card, "seconds_since_last_start": 9_000.0}, is_new=True)
    run_names.name_training(card, is_new=False)
    fitted = {**card, "method": "pretrained", "network": "package:efficientnet-lite0"}
    run_names.name_training(fitted, is_new=True)
    run_names.name_training(fitted, is_new=False)
    older = {"method": "pretrained", "network": "timm:resnet18", "fitted_on": 4096, "seconds": 3.0}
    run_names.name_training(older, is_new=False)
    assert named == [
        "trained resnet9 on 12,408 images, 5 min",
        "trained resnet9 on 12,408 images, 42 s",
        "trained resnet9 on 12,408 images, 2.5 h",
        "resnet9 on 12,408 images: trained before",
        "fitted package:efficientnet-lite0 on 12,408 images, 5 min",
        "package:efficientnet-lite0 on 12,408 images: fitted before",
        "timm:resnet18 on 4,096 images: fitted before",
    ]


def test_house_keeping_is_named_after_what_it_did(named: list[str]) -> None:
    run_names.name_maintenance(Maintained({"pool": 9, "listings": 3}, 340, 1, 0))
    run_names.name_maintenance(Maintained())
    assert named == ["12 files deleted, 340 vectors dropped, 1 table compacted", "nothing to delete or compact"]


def test_a_benchmark_is_named_after_its_cells(named: list[str]) -> None:
    run_names.name_benchmark("cifar10", new=40, cells=120, missing=2)
    run_names.name_benchmark("digits", new=1, cells=1, missing=0)
    assert named == ["cifar10: 40 new cells of 120, 2 missing", "digits: 1 new cell of 1"]
