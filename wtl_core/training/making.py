"""Makes the encoder that a recipe names for a pool: trains it, fits it, or chooses which of both (`auto`)."""

from wtl_core.encoders import cards, resolve
from wtl_core.machine import Machine, Progress
from wtl_core.recipe.encoder import EncoderParams
from wtl_core.recipe.encoder_names import parse_name
from wtl_core.training import choosing, fitting, strength_check, training
from wtl_core.training.image_cache import PoolImages
from wtl_core.workspace.storage import Store


def make(
    images: PoolImages, store: Store, params: EncoderParams, machine: Machine, *, on_progress: Progress | None = None
) -> str:
    """A name that `resolve.resolve` turns into the encoder: the fingerprint under which the workspace keeps it.

    Args:
        images: The pool.
        store: The workspace.
        params: Name, time and sizes; `encoder_names.is_made_here` holds for the name.
        machine: Where it is made.
        on_progress: Called with (steps done, steps) of a training.

    Raises:
        What `training.train` and `resolve.resolve` do.
    """
    name, side_px, facts = params.name, params.side_px, {}
    if name == "auto":
        choice = choosing.choose(images, store, seconds=params.seconds, device=machine.device)
        name, side_px, facts = choice.name, choice.side_px, choice.facts()
    if name == "ssl":
        made = training.train(
            images,
            store,
            params.model_copy(update={"name": name}),
            device=machine.device,
            devices=machine.devices,
            workers=machine.workers,
            on_progress=on_progress,
        )
    else:
        made = fitting.fit(
            images, store, name, side_px=side_px, device=machine.device, workers=machine.workers, card=facts
        )
    if parse_name(made).kind == "fingerprint" and cards.load_check(store, made) is None:
        encoder = resolve.resolve(made, store, device=machine.device)
        checked = strength_check.check(encoder, images, workers=machine.workers)
        if checked is not None:
            cards.save_check(store, made, checked)
    return made
