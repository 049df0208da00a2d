"""Self-supervised training on the pool's own images: no labels, no download, the same weights again after a kill.

Random views, order and weights are functions of (seed, step), so a checkpoint holds weights, momenta and a step count.
Not here: the sizes that a pool gets (`sizing`), the views (`augment`), the loss (`objective`), what is kept (`cards`).
"""

import dataclasses
import logging
import time
from copy import deepcopy
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from wtl_core.encoders import whitening
from wtl_core.encoders.cards import save_encoder, save_origin
from wtl_core.encoders.encoder import Encoder, build, default_format
from wtl_core.encoders.networks import beside_pixels
from wtl_core.encoders.packages import known
from wtl_core.encoders.resolve import start_from
from wtl_core.encoders.whitening import fit_whitening
from wtl_core.errors import ConfigError
from wtl_core.machine import Progress
from wtl_core.recipe.encoder import EncoderParams
from wtl_core.recipe.encoder_names import parse_name
from wtl_core.training import collapse, interruption, near_copies, sizing
from wtl_core.training.checkpoint import Checkpoint, TrainingFolder
from wtl_core.training.image_cache import PoolImages, decode_pool
from wtl_core.training.peers import Peers, joined
from wtl_core.training.sizing import TrainingPlan, check_count, plan_training
from wtl_core.training.trainer import Trainer
from wtl_core.workspace.storage import Store

_log = logging.getLogger(__name__)
_told = logging.getLogger("wtl_core.progress")  # what a user hears without asking for more

_CHECKS = 10
"""How often the health of a training is measured, evenly over its steps."""
_LEAST_STEPS_TO_CHECK = 50
"""A collapse is refused after this many steps and a fifth of all: before that features may still be those of random
weights."""
_WARM_UP_STEPS, _MOST_BLOCKS, _TIMED_SECONDS = 2, 200, 2.0
"""Turning seconds into steps: steps before the clock is read, the most blocks of steps, and the seconds that they take
together at most."""


def train(
    images: PoolImages,
    store: Store,
    params: EncoderParams,
    *,
    device: torch.device | str,
    devices: int = 1,
    workers: int = 2,
    scratch: Path | None = None,
    on_progress: Progress | None = None,
    checkpoint_seconds: float = 30,
) -> str:
    """Train an encoder on the pool and keep it in the workspace; its fingerprint.

    A call with the same images and params on the same kind of device continues where an earlier one was killed, and
    returns at once if that one finished. The weights are the same bit for bit as without the kill, on a processor with
    the same number of threads.

    Args:
        images: The pool.
        store: The workspace; unfinished state lies below `encoders/.training/`.
        params: Budget, sizes and seed.
        device: Where to train.
        devices: GPUs (or processes) of that kind that train together; a step then holds as many times more images.
        workers: Threads that decode the pool before training.
        scratch: Folder for a large pool's squares (beyond 2 GiB) while training runs; None takes the system's.
        on_progress: Called with (steps done, steps).
        checkpoint_seconds: Time between checkpoints; changes no result.

    Raises:
        InputError: too few images, or a collapse; the message says what to try.
        ConfigError: `params.start` does not fit.
        KeyboardInterrupt: Ctrl-C was pressed; the steps done are kept, and the message says how many.
    """
    device = torch.device(device)
    kind: Literal["cpu", "cuda"] = "cuda" if device.type == "cuda" else "cpu"
    start = None if params.start is None else start_from(params.start, store, side_px=params.side_px)
    number_format = default_format(device)
    draft = plan_training(
        params, images.sides_px, device=kind, number_format=number_format, start=start, devices=devices
    )
    folder = TrainingFolder(store, _key(images, params, draft, kind))
    if (finished := folder.outcome()) is not None:
        return finished
    squares = decode_pool(images, draft.images, draft.preprocessing, workers=workers, scratch=scratch)
    check_count(len(squares))
    plan = folder.load_plan() or folder.commit_plan(
        _with_steps(draft, squares, device, seconds=params.seconds, devices=devices)
    )
    network = f"{plan.shape.kind} of width {plan.shape.width}"
    _log.info("training: %s, %d images, %d steps of %d", network, len(squares), plan.steps, plan.batch_images)
    started = time.monotonic()
    checkpoint = folder.load_checkpoint()
    _told.info("%s", _beginning(plan, params, checkpoint, images=len(squares)))
    weights = start.weights if start else None
    shared = torch.from_numpy(squares).share_memory_() if devices > 1 else None  # type: ignore[no-untyped-call]
    with joined(min(devices, plan.accumulate), device, follow, plan, shared, weights, checkpoint) as peers:
        trainer = Trainer(plan, squares, device, start=weights, peers=peers)
        history = _run(trainer, folder, checkpoint, on_progress=on_progress, checkpoint_seconds=checkpoint_seconds)
    shape, network_kept = beside_pixels(plan.shape, trainer.network)
    encoder = trained_encoder(trainer)
    assert encoder.whitening is not None, "it is fitted"
    fingerprint = save_encoder(
        store,
        network_kept.state_dict() | encoder.whitening.tensors(),
        shape=shape,
        preprocessing=plan.preprocessing,
        number_format=plan.number_format,
        card=_card(plan, history, len(squares), time.monotonic() - started, device) | _origin(params.start),
        near_copy_distance=near_copies.distance(encoder, _first(trainer, near_copies.IMAGES)),
    )
    save_origin(store, fingerprint, images.sample_ids)
    folder.finish(fingerprint)
    return fingerprint


def trained_encoder(trainer: Trainer) -> Encoder:
    """The encoder of the weights as they are now: training-free features beside the network's, whitened together.

    The whitening is that of the first images: a random sample, since ids are hashes.
    """
    plan = trainer.plan
    shape, network = beside_pixels(plan.shape, deepcopy(trainer.network))
    built = build(
        network,
        name="ssl",
        architecture=shape.to_json(),
        preprocessing=plan.preprocessing,
        device=trainer.device,
        number_format=plan.number_format,
    )
    # A few rows at a time: the trainer's own tensors still fill the device, and hours of training would be lost here.
    encoder = dataclasses.replace(built, forward_rows=32)
    return encoder.fitted(fit_whitening(encoder.encode(_first(trainer, whitening.IMAGES))))


def _first(trainer: Trainer, count: int) -> torch.Tensor:
    return torch.from_numpy(np.asarray(trainer.squares[:count]))


def follow(
    peers: Peers,
    device: torch.device,
    plan: TrainingPlan,
    squares: torch.Tensor,
    weights: dict[str, torch.Tensor] | None,
    checkpoint: Checkpoint | None,
) -> None:
    """The same steps in another process, which computes its share of each and writes nothing."""
    trainer = Trainer(plan, squares.numpy(), device, start=weights, peers=peers)
    for step in range(_resumed(trainer, checkpoint), plan.steps):
        trainer.step(step)


def _resumed(trainer: Trainer, checkpoint: Checkpoint | None) -> int:
    """Load the checkpoint; the step to continue from."""
    if checkpoint is None:
        return 0
    trainer.load(checkpoint.tensors)
    return checkpoint.step


def _run(
    trainer: Trainer,
    folder: TrainingFolder,
    checkpoint: Checkpoint | None,
    *,
    on_progress: Progress | None,
    checkpoint_seconds: float,
) -> list[dict[str, Any]]:
    """Steps from the last checkpoint to the end; the figures of each check."""
    plan = trainer.plan
    first = _resumed(trainer, checkpoint)
    history: list[dict[str, Any]] = [] if checkpoint is None else checkpoint.history
    kept = time.monotonic()
    checks = {round(plan.steps * number / _CHECKS) for number in range(1, _CHECKS + 1)}
    with interruption.held_back() as is_interrupted:
        for step in range(first, plan.steps):
            loss = trainer.step(step)
            done = step + 1
            if done in checks:
                history.append(_check(trainer, done, float(loss)))
            is_last = is_interrupted()
            if is_last or (done < plan.steps and time.monotonic() - kept >= checkpoint_seconds):
                folder.save_checkpoint(Checkpoint(done, trainer.tensors(), history))
                kept = time.monotonic()
            if on_progress:
                on_progress(done, plan.steps)
            if is_last:
                raise KeyboardInterrupt(_kept(done, plan.steps))
        if is_interrupted():  # while the last step was told
            folder.save_checkpoint(Checkpoint(plan.steps, trainer.tensors(), history))
            raise KeyboardInterrupt(_kept(plan.steps, plan.steps))
    return history


def _beginning(plan: TrainingPlan, params: EncoderParams, checkpoint: Checkpoint | None, *, images: int) -> str:
    """What a user reads before the first step."""
    done = 0 if checkpoint is None else checkpoint.step
    goes_on = f" goes on at step {done:,} and" if done else ""
    minutes = params.seconds / 60 * (1 - done / plan.steps)
    cost = "" if params.epochs is not None else f", about {minutes:.{0 if minutes >= 10 else 1}f} min"
    return (
        f"encoder: the training of ssl on {images:,} images{goes_on} takes {plan.steps - done:,} steps{cost}; "
        "Ctrl-C keeps what is trained"
    )


def _kept(done: int, steps: int) -> str:
    return f"{done:,} of {steps:,} steps of the training are kept ({done / steps:.0%})"


def _check(trainer: Trainer, step: int, loss: float) -> dict[str, Any]:
    """The health of the training after a step. Raises InputError if it has diverged or collapsed."""
    first, second = trainer.two_views()
    collapse.check_finite(loss, first, second, step=step)
    health = collapse.measure(first, second)
    _log.info("training: step %d of %d, loss %.3f, %s", step, trainer.plan.steps, loss, health)
    if step >= _LEAST_STEPS_TO_CHECK and step >= trainer.plan.steps // 5:
        collapse.check(health, loss, images=len(first), step=step)
    return {"step": step, "loss": round(loss, 4), **health.to_json()}


def _with_steps(
    draft: TrainingPlan, squares: np.ndarray, device: torch.device, *, seconds: float, devices: int
) -> TrainingPlan:
    """The draft with a step count for its budget and, where memory was short, with steps computed in pieces.

    Measured on one device with its share of a step; the exchange between devices is not counted.
    """
    plan = dataclasses.replace(draft, batch_images=min(draft.batch_images, len(squares)))
    while True:
        share = dataclasses.replace(
            plan, batch_images=plan.batch_images // devices, accumulate=-(-plan.accumulate // devices)
        )
        try:
            trainer = Trainer(share, squares, device)
            for step in range(_WARM_UP_STEPS):
                trainer.step(step)
            if plan.steps:
                return plan
            per_step = seconds_per_step(trainer, at_most=min(_TIMED_SECONDS, seconds / 10))
            return dataclasses.replace(plan, steps=max(1, round(seconds / per_step)))
        except torch.OutOfMemoryError as error:
            plan = dataclasses.replace(plan, accumulate=2 * plan.accumulate)
            if plan.batch_images // plan.accumulate < sizing.LEAST_IMAGES // 2:
                raise ConfigError(
                    f"training: expected {plan.batch_images} images of {plan.view_px} px to fit into the memory of "
                    f"{device} in pieces, not even small pieces do; set encoder.side_px or encoder.width lower"
                ) from error
            _log.warning("training: out of memory, a step is computed in %d pieces", plan.accumulate)


def seconds_per_step(trainer: Trainer, *, at_most: float) -> float:
    """Median over some blocks of steps, after a warm-up; a GPU is waited for only at the end of a block.

    A single block is timed where one step takes longer than `at_most`.
    """
    block = 10 if trainer.device.type == "cuda" else 1
    taken: list[float] = []
    float(trainer.step(_WARM_UP_STEPS))
    while not taken or (sum(taken) < at_most and len(taken) < _MOST_BLOCKS):
        started = time.perf_counter()
        losses = [trainer.step(_WARM_UP_STEPS + 1 + block * len(taken) + step) for step in range(block)]
        float(losses[-1])
        taken.append(time.perf_counter() - started)
    return float(np.median(taken)) / block


def _key(images: PoolImages, params: EncoderParams, draft: TrainingPlan, kind: str) -> str:
    """Names a training by everything that its committed plan and weights depend on."""
    budget = {"seconds": params.seconds} if params.epochs is None else {"epochs": params.epochs}
    identity = {"version": sizing.VERSION, "plan": draft.to_json(), "budget": budget, "device": kind}
    return sizing.training_key(identity, images.sample_ids[: draft.images])


def _origin(start: str | None) -> dict[str, Any]:
    """Of weights that the training started from, for the card; a package's network has seen labels."""
    if start is None:
        return {}
    parsed = parse_name(start)
    of_package = known(parsed.value) if parsed.kind == "package" else []
    licences = ["that of the images it was trained on", *(one.licence for one in of_package)]
    origin = "; ".join(dict.fromkeys(one.origin for one in of_package))
    return {"start": start, "licence": "; ".join(dict.fromkeys(licences))} | ({"origin": origin} if origin else {})


def _card(
    plan: TrainingPlan, history: list[dict[str, Any]], images: int, seconds: float, device: torch.device
) -> dict[str, Any]:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    return {
        "method": "contrastive",
        "plan": plan.to_json(),
        "images": images,
        "seconds_since_last_start": round(seconds, 1),
        "device": name,
        "torch": torch.__version__,
        "watch": history,
        "licence": "that of the images it was trained on",
    }
