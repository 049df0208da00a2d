"""The loss against a plain one, and the watch over a training on hand-worked cases."""

import numpy as np
import pytest
import torch

from tests.small_training import TINY, make_pool
from wtl_core.errors import InputError
from wtl_core.training import collapse, trainer
from wtl_core.training.objective import contrast
from wtl_core.training.training import train
from wtl_core.workspace.storage import Store


def slow_contrast(projected: np.ndarray, views: int, temperature: float) -> float:
    """The definition, row by row."""
    unit = projected / np.linalg.norm(projected, axis=1, keepdims=True)
    count = len(unit)
    losses = []
    for row in range(count):
        others = [other for other in range(count) if other != row]
        weight = {other: np.exp(unit[row] @ unit[other] / temperature) for other in others}
        right = [other for other in others if other % (count // views) == row % (count // views)]
        losses += [np.mean([-np.log(weight[other] / sum(weight.values())) for other in right])]
    return float(np.mean(losses))


@pytest.mark.parametrize("views", [2, 3, 4])
def test_the_contrast_is_its_definition(views: int) -> None:
    projected = np.random.default_rng(0).standard_normal((views * 5, 7))
    found = contrast(torch.from_numpy(projected), views=views, temperature=0.3)
    assert float(found) == pytest.approx(slow_contrast(projected, views, 0.3), rel=1e-9)


def test_the_contrast_is_least_where_views_agree_and_images_differ() -> None:
    apart = torch.eye(4).repeat(2, 1)
    mixed = torch.cat([torch.eye(4), torch.eye(4).roll(1, 0)])
    one = torch.ones(8, 4)
    values = [float(contrast(each, views=2, temperature=0.5)) for each in (apart, one, mixed)]
    assert values == sorted(values)
    assert values[1] == pytest.approx(np.log(7))


def test_the_watch_on_features_that_are_known() -> None:
    spread = torch.eye(64).repeat(2, 1)[:64] + 0
    health = collapse.measure(spread, spread)
    assert health.effective_rank == pytest.approx(63, rel=0.02)  # centring takes one direction
    assert health.alignment == pytest.approx(0, abs=1e-6)
    assert health.agreement == 1
    assert health.uniformity == pytest.approx(-4, abs=1e-3)  # all pairs at squared distance 2
    point = torch.ones(64, 8)
    collapsed = collapse.measure(point, point)
    assert collapsed.effective_rank == pytest.approx(1, abs=0.05)
    assert collapsed.uniformity == pytest.approx(0, abs=1e-6)


def test_views_that_share_no_neighbours_agree_by_chance() -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.randn(400, 16, generator=generator) for _ in range(2))
    health = collapse.measure(first, second)
    assert health.agreement == pytest.approx(10 / 399, rel=0.3)
    with pytest.raises(InputError, match=r"collapsed at step 7.*agreement 0.0.*chance 0.025.*another seed"):
        collapse.check(health, 1.0, images=400, step=7)


@pytest.mark.parametrize(("loss", "feature"), [(float("nan"), 1.0), (float("inf"), 1.0), (1.0, float("nan"))])
def test_what_is_no_number_fails_the_run(loss: float, feature: float) -> None:
    with pytest.raises(InputError, match="diverged at step 1"):
        collapse.check_finite(loss, torch.ones(4, 8), torch.full((4, 8), feature), step=1)


def test_a_training_that_leaves_the_numbers_fails_with_advice(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    real = trainer.Trainer.loss
    monkeypatch.setattr(trainer.Trainer, "loss", lambda *given: real(*given) * float("nan"))
    with pytest.raises(InputError, match=r"diverged at step 1.*found loss nan and 80 of 80 views.*another seed"):
        train(make_pool(40), store, TINY, device="cpu")


def test_images_that_do_not_differ_fail_the_run_with_advice(store: Store) -> None:
    grey = make_pool(80, side=16, is_blank=True)
    with pytest.raises(InputError, match=r"check that the images differ.*take a pretrained encoder"):
        train(grey, store, TINY.model_copy(update={"epochs": 12}), device="cpu")
