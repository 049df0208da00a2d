"""What a training is planned to be: image side, network, steps and pieces."""

import dataclasses
import hashlib
import json
import time

import numpy as np
import pytest
import torch

from tests.small_training import TINY, Killed, make_pool
from wtl_core.encoders.cards import load_card
from wtl_core.encoders.networks import NetworkShape
from wtl_core.encoders.preprocessing import Preprocessing
from wtl_core.encoders.resolve import Start
from wtl_core.errors import ConfigError, CorruptArtifactError, InputError
from wtl_core.recipe.encoder import EncoderParams
from wtl_core.training import sizing, trainer, training
from wtl_core.training.checkpoint import TrainingFolder
from wtl_core.training.sizing import plan_from_json, plan_training, side_for
from wtl_core.training.training import train
from wtl_core.workspace.storage import Store


@pytest.mark.parametrize(
    ("side", "device", "expected"),
    [(32, "cpu", 32), (32, "cuda", 32), (28, "cpu", 32), (80, "cpu", 64), (500, "cpu", 64), (1000, "cuda", 128)],
)
def test_the_image_side_follows_the_pool_and_the_machine(side: int, device: str, expected: int) -> None:
    assert side_for(np.full(100, side), device) == expected  # type: ignore[arg-type]


def test_a_processor_gets_a_narrow_network_and_a_gpu_a_wide_one() -> None:
    for side, stem in ((32, 1), (64, 2)):
        small = plan_training(EncoderParams(), np.full(5000, side), device="cpu", number_format="float32")
        assert (small.shape.kind, small.shape.width, small.shape.stem_stride) == ("resnet9", 16, stem)
    large = plan_training(EncoderParams(), np.full(5000, 1000), device="cuda", number_format="bfloat16")
    assert (large.shape.kind, large.shape.width, large.shape.stem_stride) == ("resnet18", 64, 4)


def test_a_plan_survives_json() -> None:
    plan = plan_training(EncoderParams(epochs=3), np.full(500, 32), device="cpu", number_format="float32")
    assert plan_from_json(json.loads(json.dumps(plan.to_json()))) == plan


def test_another_side_keeps_the_share_of_an_image_that_a_crop_shows() -> None:
    start = Start(NetworkShape("timm:x", 8), {}, Preprocessing(224, "crop", 256))
    for side, resized in ((112, 128), (224, 256), (32, 37)):
        params = EncoderParams(side_px=side)
        plan = plan_training(params, np.full(500, 300), device="cpu", number_format="float32", start=start)
        assert plan.preprocessing == Preprocessing(side, "crop", resized)


def test_too_few_images_are_refused_with_advice(store: Store) -> None:
    with pytest.raises(InputError, match=r"at least 16 images.*found 5.*--encoder pixels"):
        train(make_pool(5), store, TINY, device="cpu")


def test_a_budget_becomes_a_step_count_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    params = TINY.model_copy(update={"epochs": None, "seconds": 4.0})
    monkeypatch.setattr(training, "seconds_per_step", lambda trainer, at_most: 0.5)
    steps: set[int] = set()

    def kill(done: int, total: int) -> None:
        steps.add(total)
        if done == 2:
            raise Killed

    with pytest.raises(Killed):
        train(make_pool(40), store, params, device="cpu", on_progress=kill, checkpoint_seconds=0)
    monkeypatch.setattr(training, "seconds_per_step", lambda trainer, at_most: 0.01)  # a faster moment
    train(make_pool(40), store, params, device="cpu", on_progress=lambda done, total: steps.add(total))
    assert steps == {8}


def test_a_measured_budget_is_kept_roughly(store: Store) -> None:
    params = TINY.model_copy(update={"epochs": None, "seconds": 1.0})
    started = time.monotonic()
    train(make_pool(64), store, params, device="cpu")
    assert time.monotonic() - started < 20


def test_short_memory_computes_steps_in_pieces(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    real = trainer.Trainer.loss

    def limited(self: trainer.Trainer, rows: np.ndarray, generator: torch.Generator) -> torch.Tensor:
        if len(rows) > 8:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(self, rows, generator)

    monkeypatch.setattr(trainer.Trainer, "loss", limited)
    fingerprint = train(make_pool(40), store, TINY, device="cpu")
    card = load_card(store, fingerprint)
    assert card is not None
    assert card["plan"]["accumulate"] == 2

    def never(self: trainer.Trainer, rows: np.ndarray, generator: torch.Generator) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(trainer.Trainer, "loss", never)
    with pytest.raises(ConfigError, match="not even small pieces do"):
        train(make_pool(41), store, TINY, device="cpu")


def test_every_image_is_seen_once_per_epoch() -> None:
    plan = plan_training(TINY, np.full(48, 16), device="cpu", number_format="float32")
    one = trainer.Trainer(plan, np.zeros((48, 3, 16, 16), np.uint8), torch.device("cpu"))
    epochs = [np.sort(np.concatenate([one.rows_of_step(3 * epoch + step) for step in range(3)])) for epoch in range(2)]
    assert all(np.array_equal(epoch, np.arange(48)) for epoch in epochs)
    assert not np.array_equal(one.rows_of_step(0), one.rows_of_step(3))


def test_a_lost_plan_file_or_outcome_changes_nothing(store: Store) -> None:
    plan = dataclasses.replace(plan_training(TINY, np.full(40, 16), device="cpu", number_format="float32"), steps=3)
    folder = TrainingFolder(store, hashlib.sha256(b"x").hexdigest())
    assert folder.load_plan() is None
    assert folder.commit_plan(plan) == plan
    assert folder.commit_plan(dataclasses.replace(plan, steps=9)) == plan  # the first one counts
    assert folder.outcome() is None
    folder.finish("f" * 64)
    assert folder.outcome() is None  # no encoder of that name is there


def test_a_broken_plan_or_outcome_is_named(store: Store) -> None:
    folder = TrainingFolder(store, "k")
    for name, look in (("plan.json", folder.load_plan), ("outcome.json", folder.outcome)):
        store.write_bytes(folder.path(name), b"{")
        with pytest.raises(CorruptArtifactError, match=rf"{name}: expected what a training wrote"):
            look()


def test_a_key_depends_on_every_id_in_order() -> None:
    keys = {sizing.training_key({}, ids) for ids in (["a", "b"], ["b", "a"], ["ab"], ["a", "b", "c"])}
    assert len(keys) == 4


def test_kernels_of_a_compiled_training_are_chosen_by_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, object]] = []
    monkeypatch.setattr(trainer, "can_compile", lambda: True)
    monkeypatch.setattr(torch, "compile", lambda function, **how: asked.append(how) or function)
    assert trainer.compiled_on_gpu(torch.relu, torch.device("cpu")) is torch.relu
    assert asked == []
    trainer.compiled_on_gpu(torch.relu, torch.device("cuda"))
    assert asked == [{"dynamic": False, "options": {"deterministic": True}}]
