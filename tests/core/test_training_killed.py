"""A training that is killed, or that several processes share, ends with the same weights."""

import operator
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.small_training import TINY, Killed, make_pool
from wtl_core.encoders.cards import WEIGHTS
from wtl_core.errors import TransientError
from wtl_core.recipe.encoder import EncoderParams
from wtl_core.training import interruption, peers, training
from wtl_core.training.checkpoint import Checkpoint, TrainingFolder
from wtl_core.training.training import train
from wtl_core.workspace.storage import Store, open_store

HERE = Path(__file__).resolve()


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
    command = [sys.executable, str(HERE), root, TINY.model_dump_json(), "1"]
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


def test_ctrl_c_ends_it_after_the_step_and_the_next_call_goes_on_from_there(tmp_path: Path) -> None:
    straight = train(make_pool(40), open_store(str(tmp_path / "straight")), TINY, device="cpu")
    store = open_store(str(tmp_path / "interrupted"))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a worker of the tests may have another

    def press(done: int, steps: int) -> None:
        if done == 2:
            signal.raise_signal(signal.SIGINT)

    try:
        with pytest.raises(KeyboardInterrupt, match=r"^3 of 5 steps of the training are kept \(60%\)$"):
            train(make_pool(40), store, TINY, device="cpu", on_progress=press, checkpoint_seconds=1000)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    seen: list[int] = []
    assert train(make_pool(40), store, TINY, device="cpu", on_progress=lambda done, _: seen.append(done)) == straight
    assert seen == [4, 5]


def test_ctrl_c_while_the_last_step_is_told_ends_it_and_the_next_call_finishes(tmp_path: Path) -> None:
    straight = train(make_pool(40), open_store(str(tmp_path / "straight")), TINY, device="cpu")
    store = open_store(str(tmp_path / "interrupted"))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def press(done: int, steps: int) -> None:
        if done == steps:
            signal.raise_signal(signal.SIGINT)

    try:
        with pytest.raises(KeyboardInterrupt, match=r"^5 of 5 steps of the training are kept \(100%\)$"):
            train(make_pool(40), store, TINY, device="cpu", on_progress=press, checkpoint_seconds=1000)
    finally:
        signal.signal(signal.SIGINT, before)
    assert train(make_pool(40), store, TINY, device="cpu") == straight


def test_ctrl_c_to_two_processes_keeps_what_they_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal sends it to both: a process group of their own gets it here."""
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    command = [sys.executable, str(HERE), str(tmp_path), PAIR.model_copy(update={"epochs": 20}).model_dump_json(), "2"]
    environment = {**os.environ, "PYTHONPATH": str(HERE.parents[2]), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "3\n"
        os.killpg(process.pid, signal.SIGINT)
        _, told = process.communicate(timeout=60)
    finally:
        process.kill()
    assert re.search(r"KeyboardInterrupt: 4 of \d+ steps of the training are kept", told), told


def test_a_second_ctrl_c_is_not_held_back() -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with interruption.held_back() as is_pressed:
            signal.raise_signal(signal.SIGINT)
            assert is_pressed()
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


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
    """What the process that is to be killed or interrupted runs: `test_training_killed.py ROOT PARAMS DEVICES`."""

    def report(done: int, steps: int) -> None:
        if done == 3:
            sys.stdout.write(f"{done}\n")
            sys.stdout.flush()
            sys.stdin.read()

    params = EncoderParams.model_validate_json(sys.argv[2])
    devices = int(sys.argv[3])
    train(
        make_pool(40), open_store(sys.argv[1]), params, device="cpu", devices=devices, on_progress=report,
        checkpoint_seconds=0,
    )  # fmt: skip


if __name__ == "__main__":
    train_until_killed()
