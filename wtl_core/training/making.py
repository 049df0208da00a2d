"""Makes the encoder that a recipe names for a pool: trains it, fits it, or first chooses between the two (`auto`).

What `auto` chooses depends on a timed pass, so what it made is recorded: a run after a kill does not choose again once
the encoder is there.
"""

from typing import Any

from wtl_core.encoders import cards, packages, resolve
from wtl_core.machine import Machine, Progress
from wtl_core.recipe.encoder import EncoderParams
from wtl_core.recipe.encoder_names import parse_name
from wtl_core.training import choosing, fitting, strength_check, training
from wtl_core.training.checkpoint import TrainingFolder
from wtl_core.training.image_cache import PoolImages
from wtl_core.training.sizing import training_key
from wtl_core.workspace.storage import Store

_AUTO_VERSION = 2  # 2: two networks side by side where there is time for them
"""Raise when `auto` would choose otherwise; a choice of before that is not found again."""


def make(
    images: PoolImages, store: Store, params: EncoderParams, machine: Machine, *, on_progress: Progress | None = None
) -> str:
    """A name that `resolve.resolve` turns into the encoder: the fingerprint under which the workspace keeps it.

    Args:
        images: The pool.
        store: The workspace.
        params: Name, time and sizes; `encoder_names.is_made_here` holds for the name.
        machine: Where it is made.
        on_progress: Called with (steps done, steps) of a training, or of a fit, whose steps are passes.

    Raises:
        What `training.train` and `resolve.resolve` do.
    """
    if params.name != "auto":
        made = _make(images, store, params, machine, on_progress=on_progress)
    else:
        identity = {"auto": _AUTO_VERSION, "seconds": params.seconds, "installed": packages.installed()}
        key = training_key(identity, images.sample_ids)
        folder = TrainingFolder(store, key)
        made = folder.outcome() or _chosen(images, store, params, machine, on_progress=on_progress)
        folder.finish(made)
    if parse_name(made).kind == "fingerprint" and cards.load_check(store, made) is None:
        encoder = resolve.resolve(made, store, device=machine.device)
        checked = strength_check.check(encoder, images, workers=machine.workers)
        if checked is not None:
            cards.save_check(store, made, checked)
    return made


def _chosen(
    images: PoolImages, store: Store, params: EncoderParams, machine: Machine, *, on_progress: Progress | None
) -> str:
    choice = choosing.choose(
        images.sides_px, store, count=len(images.sample_ids), seconds=params.seconds, device=machine.device
    )
    named = params.model_copy(update={"name": choice.name, "side_px": choice.side_px})
    return _make(images, store, named, machine, facts=choice.facts(), on_progress=on_progress)


def _make(
    images: PoolImages,
    store: Store,
    params: EncoderParams,
    machine: Machine,
    *,
    facts: dict[str, Any] | None = None,
    on_progress: Progress | None,
) -> str:
    """Train `ssl`, or fit the network that `params` name; `facts` are kept on the card of what was fitted."""
    if params.name != "ssl":
        return fitting.fit(
            images,
            store,
            params.name,
            side_px=params.side_px,
            device=machine.device,
            workers=machine.workers,
            card=facts,
            on_progress=on_progress,
        )
    return training.train(
        images,
        store,
        params,
        device=machine.device,
        devices=machine.devices,
        workers=machine.workers,
        on_progress=on_progress,
    )
