"""Training: the loss against a plain one, the watch on hand-worked cases, and the same weights after any kill."""

import dataclasses
import errno
import hashlib
import io
import json
import operator
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from wtl_core.encoders.cards import WEIGHTS, load_card, load_encoder
from wtl_core.encoders.networks import NetworkShape
from wtl_core.encoders.preprocessing import Preprocessing
from wtl_core.encoders.resolve import Start, resolve
from wtl_core.errors import ConfigError, CorruptArtifactError, InputError, TransientError
from wtl_core.recipe.encoder import EncoderParams
from wtl_core.training import collapse, peers, sizing, trainer, training
from wtl_core.training.checkpoint import Checkpoint, TrainingFolder
from wtl_core.training.image_cache import PoolImages, decode_pool, next_files
from wtl_core.training.objective import contrast
from wtl_core.training.sizing import plan_from_json, plan_training, side_for
from wtl_core.training.training import train
from wtl_core.workspace.storage import Store, open_store

TINY = EncoderParams(epochs=2, width=8, batch_images=16, side_px=16)
HERE = Path(__file__).resolve()


def make_pool(count: int, *, side: int = 20, is_blank: bool = False) -> PoolImages:
    """`count` smooth images that differ from each other (or one grey), sorted by id like a pool."""
    files = []
    for seed in range(count):
        coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
        image = Image.fromarray(coarse if not is_blank else np.full_like(coarse, 128)).resize((side, side))
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        files.append(buffer.getvalue() + bytes([seed % 256]) * is_blank)
    files.sort(key=lambda data: hashlib.sha256(data).hexdigest())

    def read(rows: Sequence[int]) -> Iterator[tuple[int, bytes | None]]:
        return ((row, files[row]) for row in rows)

    return PoolImages([hashlib.sha256(data).hexdigest() for data in files], np.full(count, side), read)


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


def test_a_trained_encoder_resolves_and_says_how_it_was_made(store: Store) -> None:
    seen: list[tuple[int, int]] = []
    fingerprint = train(make_pool(40), store, TINY, device="cpu", on_progress=lambda *done: seen.append(done))
    encoder = resolve(fingerprint, store, device="cpu")
    assert (encoder.fingerprint, encoder.dimensions, encoder.side_px) == (fingerprint, 64, 16)
    assert seen == [(done, 5) for done in range(1, 6)]  # 2 epochs of 40 images in steps of 16
    card = load_card(store, fingerprint)
    assert card is not None
    assert card["plan"]["steps"] == 5
    assert 0.0 < card["near_copy_distance"] < 2.0
    assert {"step", "loss", "effective_rank", "alignment", "uniformity", "agreement"} == set(card["watch"][-1])


def test_the_same_call_again_trains_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    fingerprint = train(make_pool(40), store, TINY, device="cpu")
    monkeypatch.setattr(training, "decode_pool", None)
    assert train(make_pool(40), store, TINY, device="cpu") == fingerprint


def test_seed_and_images_change_the_weights_and_nothing_else_does(store: Store, tmp_path: Path) -> None:
    first = train(make_pool(40), store, TINY, device="cpu")
    other_place = open_store(str(tmp_path / "other"))
    assert train(make_pool(40), other_place, TINY, device="cpu", workers=1) == first
    assert train(make_pool(40), store, TINY.model_copy(update={"seed": 1}), device="cpu") != first
    assert train(make_pool(41), store, TINY, device="cpu") != first


def test_the_global_generator_is_left_alone(store: Store) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    train(make_pool(20), store, TINY, device="cpu")
    assert torch.equal(torch.rand(3), expected)


class Killed(BaseException):
    """Stands for SIGKILL where a subprocess would cost seconds."""


def test_stopped_after_any_step_it_ends_with_the_same_bits(tmp_path: Path) -> None:
    straight = train(make_pool(40), open_store(str(tmp_path / "straight")), TINY, device="cpu")
    for stop in range(1, 6):
        store = open_store(str(tmp_path / f"stopped-{stop}"))

        def kill(done: int, steps: int, stop: int = stop) -> None:
            if done == stop:
                raise Killed

        with pytest.raises(Killed):
            train(make_pool(40), store, TINY, device="cpu", on_progress=kill, checkpoint_seconds=0)
        resumed: list[int] = []
        again = train(
            make_pool(40), store, TINY, device="cpu", on_progress=lambda done, _, seen=resumed: seen.append(done)
        )
        assert again == straight
        assert resumed[:1] == ([stop + 1] if stop < 5 else [5])  # the last step is never checkpointed


def test_killed_by_the_system_it_ends_with_the_same_bits(tmp_path: Path) -> None:
    straight = train(make_pool(40), open_store(str(tmp_path / "straight")), TINY, device="cpu")
    root = str(tmp_path / "killed")
    command = [sys.executable, str(HERE), root, TINY.model_dump_json()]
    environment = {**os.environ, "PYTHONPATH": str(HERE.parents[2]), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.readline() == "3\n"  # three steps done, one checkpoint at least
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    process.stdin.close()
    assert list((tmp_path / "killed").glob("encoders/.training/*/checkpoint.safetensors"))
    assert train(make_pool(40), open_store(root), TINY, device="cpu") == straight


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


PAIR = TINY.model_copy(update={"batch_images": 32})


def test_two_processes_train_what_one_does_in_two_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Real processes, by gloo. Running statistics differ: one process goes through its pieces one after the other."""
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    weights = []
    for size in (2, 1):
        own = open_store(str(tmp_path / f"{size}"))
        monkeypatch.setattr(training, "joined", lambda _, *rest, size=size: peers.joined(size, *rest))
        weights.append(
            load_file(own.path(f"encoders/{train(make_pool(64), own, PAIR, device='cpu', devices=2)}/{WEIGHTS}"))
        )
    for key, value in weights[0].items():
        if not any(part in key for part in ("running", "num_batches", "whitening")):
            torch.testing.assert_close(value, weights[1][key], rtol=1e-3, atol=1e-4)


def test_two_processes_go_on_from_a_checkpoint_with_the_same_bits(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    kept: list[Checkpoint] = []
    with monkeypatch.context() as patch:
        patch.setattr(TrainingFolder, "save_checkpoint", lambda _, point: kept.append(copied(point)))
        whole = train(make_pool(64), store, PAIR, device="cpu", devices=2, checkpoint_seconds=0)
    monkeypatch.setattr(TrainingFolder, "load_checkpoint", lambda _: kept[1])
    other = open_store(str(tmp_path / "other"))
    assert train(make_pool(64), other, PAIR, device="cpu", devices=2) == whole


def copied(point: Checkpoint) -> Checkpoint:
    tensors = {key: value.detach().clone() for key, value in point.tensors.items()}
    return Checkpoint(point.step, tensors, list(point.history))


def test_a_lost_process_ends_the_training_with_a_transient_error(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    monkeypatch.setattr(training, "follow", operator.not_)  # does not take these arguments: the process fails at once
    with pytest.raises(TransientError, match="one of 2 processes was lost"):
        train(make_pool(64), store, PAIR, device="cpu", devices=2)


def test_training_goes_on_from_an_earlier_encoder(store: Store) -> None:
    first = train(make_pool(40), store, TINY, device="cpu")
    further = train(make_pool(48), store, TINY.model_copy(update={"start": first}), device="cpu")
    assert further != first
    card = load_card(store, further)
    assert card is not None
    assert card["plan"]["start"] is not None
    assert resolve(further, store, device="cpu").dimensions == 64


def test_a_start_without_weights_is_refused(store: Store) -> None:
    with pytest.raises(ConfigError, match="expected weights to go on from"):
        train(make_pool(40), store, TINY.model_copy(update={"start": "pixels"}), device="cpu")


@pytest.mark.parametrize("name", ["torchvision:googlenet", "torchvision:inception_v3@w.pth"])
def test_a_start_with_several_outputs_in_training_is_refused(name: str, store: Store) -> None:
    with pytest.raises(ConfigError, match=r"encoder.start .*expected a network with one output in training"):
        train(make_pool(20), store, EncoderParams(epochs=1, start=name), device="cpu")


def test_an_encoder_pretrained_elsewhere_is_trained_further(store: Store, tmp_path: Path) -> None:
    import timm
    from safetensors.torch import save_file

    save_file(timm.create_model("test_resnet", pretrained=False).state_dict(), tmp_path / "w.safetensors")
    params = EncoderParams(epochs=1, batch_images=16, side_px=32, start=f"timm:test_resnet@{tmp_path}/w.safetensors")
    encoder = resolve(train(make_pool(32), store, params, device="cpu"), store, device="cpu")
    assert encoder.card["plan"]["shape"]["kind"] == "timm:test_resnet"
    assert encoder.side_px == 32


def test_a_start_that_drops_layers_by_chance_gives_the_same_bits(tmp_path: Path) -> None:
    from torchvision import models

    torch.manual_seed(0)
    torch.save(models.efficientnet_b0(weights=None).state_dict(), tmp_path / "w.pth")
    start = f"torchvision:efficientnet_b0@{tmp_path / 'w.pth'}"
    params = EncoderParams(start=start, epochs=1, side_px=32, batch_images=8)
    trained = set()
    for seed in range(2):
        torch.manual_seed(seed)  # the caller's generator has no say, and is left alone
        before = torch.random.get_rng_state()
        trained.add(train(make_pool(16, side=32), open_store(str(tmp_path / str(seed))), params, device="cpu"))
        assert torch.equal(torch.random.get_rng_state(), before)
    assert len(trained) == 1


def test_a_start_that_cannot_take_the_side_is_refused(store: Store, tmp_path: Path) -> None:
    import timm
    from safetensors.torch import save_file

    network = timm.create_model("vit_tiny_patch16_224", pretrained=False)
    save_file(network.state_dict(), tmp_path / "w.safetensors")
    params = EncoderParams(start=f"timm:vit_tiny_patch16_224@{tmp_path}/w.safetensors", epochs=1, side_px=32)
    with pytest.raises(ConfigError, match=r"encoder.side_px: .* found 32"):
        train(make_pool(16), store, params, device="cpu")


def test_large_files_are_decoded_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    files = [(row, bytes(300)) for row in range(5)] + [(5, None)]
    source = iter(files)
    assert [len(next_files(source, 4, 700)) for _ in range(4)] == [3, 3, 0, 0]
    whole = decode_pool(make_pool(40), 40, Preprocessing(16))
    monkeypatch.setattr("wtl_core.training.image_cache.READ_BYTES", 1)
    assert np.array_equal(decode_pool(make_pool(40), 40, Preprocessing(16)), whole)


def test_a_disk_without_room_for_the_images_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("wtl_core.training.image_cache.IN_MEMORY_BYTES", 1000)
    monkeypatch.setattr(os, "posix_fallocate", refuse)
    with pytest.raises(ConfigError, match=rf"^{tmp_path}: expected room for .* set TMPDIR"):
        decode_pool(make_pool(40), 40, Preprocessing(16), scratch=tmp_path)


def test_a_broken_checkpoint_is_trained_over(tmp_path: Path) -> None:
    straight = train(make_pool(40), open_store(str(tmp_path / "straight")), TINY, device="cpu")
    for content in (b"", b"cut", b"\x02\0\0\0\0\0\0\0{}"):
        store = open_store(str(tmp_path / f"broken-{len(content)}"))

        def kill(done: int, total: int) -> None:
            raise Killed

        with pytest.raises(Killed):
            train(make_pool(40), store, TINY, device="cpu", on_progress=kill, checkpoint_seconds=0)
        (checkpoint,) = Path(store.root).glob("encoders/.training/*/checkpoint.safetensors")
        checkpoint.write_bytes(content)
        assert train(make_pool(40), store, TINY, device="cpu") == straight


def test_a_broken_plan_or_outcome_is_named(store: Store) -> None:
    folder = TrainingFolder(store, "k")
    for name, look in (("plan.json", folder.load_plan), ("outcome.json", folder.outcome)):
        store.write_bytes(folder.path(name), b"{")
        with pytest.raises(CorruptArtifactError, match=rf"{name}: expected what a training wrote"):
            look()


def test_unreadable_images_are_left_out_of_training(store: Store) -> None:
    pool = make_pool(40)

    def read(rows: Sequence[int]) -> Iterator[tuple[int, bytes | None]]:
        for row, data in pool.read(rows):
            yield row, None if row == 3 else b"no image" if row == 7 else data

    squares = decode_pool(PoolImages(pool.sample_ids, pool.sides_px, read), 40, Preprocessing(16))
    whole = decode_pool(pool, 40, Preprocessing(16))
    assert np.array_equal(squares, np.delete(whole, [3, 7], axis=0))


def test_a_large_pool_is_kept_in_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    whole = decode_pool(make_pool(40), 40, Preprocessing(16))
    monkeypatch.setattr("wtl_core.training.image_cache.IN_MEMORY_BYTES", 1000)
    mapped = decode_pool(make_pool(40), 40, Preprocessing(16), scratch=tmp_path)
    assert isinstance(mapped, np.memmap)
    assert np.array_equal(mapped, whole)
    assert list(tmp_path.iterdir()) == []


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


@pytest.mark.gpu
def test_on_a_gpu_a_stopped_training_ends_with_the_same_bits(tmp_path: Path) -> None:
    params = EncoderParams(epochs=4, width=16, batch_images=64, side_px=32)
    straight = train(make_pool(256), open_store(str(tmp_path / "straight")), params, device="cuda")
    store = open_store(str(tmp_path / "stopped"))

    def kill(done: int, steps: int) -> None:
        if done == 7:
            raise Killed

    with pytest.raises(Killed):
        train(make_pool(256), store, params, device="cuda", on_progress=kill, checkpoint_seconds=0)
    assert train(make_pool(256), store, params, device="cuda") == straight


def train_until_killed() -> None:
    """What the process that is to be killed runs: `test_encoders_training.py ROOT PARAMS`."""

    def report(done: int, steps: int) -> None:
        if done == 3:
            sys.stdout.write(f"{done}\n")
            sys.stdout.flush()
            sys.stdin.read()

    params = EncoderParams.model_validate_json(sys.argv[2])
    train(make_pool(40), open_store(sys.argv[1]), params, device="cpu", on_progress=report, checkpoint_seconds=0)


if __name__ == "__main__":
    train_until_killed()


def test_a_trained_encoder_is_whitened_by_the_pool_and_may_be_trained_on(store: Store) -> None:
    first = train(make_pool(64), store, TINY, device="cpu")
    encoder = load_encoder(store, first, device=torch.device("cpu"))
    assert encoder.whitening is not None
    vectors = encoder.encode(torch.from_numpy(decode_pool(make_pool(64), 64, encoder.preprocessing)))
    assert vectors.mean(0).norm() < 0.3  # without it a ReLU's features have nearly all of their length in common
    assert train(make_pool(64), store, TINY.model_copy(update={"start": first}), device="cpu") != first
