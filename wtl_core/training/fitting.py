"""Fits a network from elsewhere to a pool: features are centred, whitened and reduced, and near-copies measured.

No labels and no training: one pass over some thousand images. What it finds is kept in the workspace under a
fingerprint of its own, so that every later image is treated in the same way.
"""

import time
from typing import Any

import torch

from wtl_core.encoders import cards, resolve, whitening
from wtl_core.encoders.encoder import Encoder
from wtl_core.encoders.networks import NetworkShape
from wtl_core.encoders.packages import load_packaged
from wtl_core.encoders.whitening import fit_whitening
from wtl_core.errors import ConfigError
from wtl_core.machine import Progress
from wtl_core.recipe.encoder_names import parse_name
from wtl_core.training import near_copies
from wtl_core.training.image_cache import PoolImages, decode_pool
from wtl_core.workspace.storage import Store

FITTED_ON = "fitted_on"
"""On the card: how many images a network was fitted on."""
_ALIKE = 1e-6
"""Difference of numbers of unit vectors up to which they are the same."""


def fit(
    images: PoolImages,
    store: Store,
    name: str,
    *,
    side_px: int | None,
    device: torch.device | str,
    workers: int = 2,
    card: dict[str, Any] | None = None,
    on_progress: Progress | None = None,
) -> str:
    """Fit the network of this name to a pool, and keep the result in the workspace; its fingerprint.

    The same images give the same fingerprint on one kind of processor, whatever the number of threads. A packaged
    network is kept whole, with its weights; of networks of timm, torchvision and factories only the fit is.

    Args:
        images: The pool. With fewer than `whitening.LEAST_IMAGES` images features stay as they are; a packaged network
            is kept all the same, and its card says that it was fitted on none.
        store: The workspace.
        name: A form of `encoder_names.FORMS` that needs no training.
        side_px: The image side, None for the network's own.
        device: Where the network runs.
        workers: Threads that decode.
        card: What else is to be kept of it.
        on_progress: Called with (passes done, passes) of the network over the images of the fit.

    Raises:
        What `resolve.resolve` and `fitted_to` do.
    """
    started = time.monotonic()
    base = resolve.resolve(name, store, device=device, side_px=side_px)
    fitted, squares = fitted_to(base, images, workers=workers, on_progress=on_progress)
    parsed = parse_name(name)
    whitened = fitted.whitening
    if whitened is None and parsed.kind != "package":
        return name
    facts = {
        **base.card,
        **(card or {}),
        "near_copy_distance": None if whitened is None else near_copies.distance(fitted, squares),
        "number_format": base.number_format,
        FITTED_ON: 0 if whitened is None else len(squares),
        "images": len(images.sample_ids),
        "seconds_since_last_start": round(time.monotonic() - started, 1),
    }
    if parsed.kind == "package":
        network, _ = load_packaged(parsed.value)
        fingerprint = cards.save_encoder(
            store,
            network.state_dict() | ({} if whitened is None else whitened.tensors()),
            shape=NetworkShape(name, network.dimensions),
            preprocessing=base.preprocessing,
            number_format=base.number_format,
            card=facts,
            near_copy_distance=facts["near_copy_distance"],
        )
    else:
        fingerprint = cards.save_fitted(store, fitted, name=name, side_px=side_px, card=facts)
    cards.save_origin(store, fingerprint, images.sample_ids)
    return fingerprint


def fitted_to(
    base: Encoder, images: PoolImages, *, workers: int, on_progress: Progress | None = None
) -> tuple[Encoder, torch.Tensor]:
    """The network with the whitening of its features of the first images, and these images as (n, 3, S, S) squares.

    The first images are a random sample, since ids are hashes.

    Raises:
        ConfigError: the network gives the same for all of them, or what is no number, as with damaged weights.
    """
    count = min(len(images.sample_ids), whitening.IMAGES)
    squares = torch.from_numpy(decode_pool(images, count, base.preprocessing, workers=workers))
    if len(squares) < whitening.LEAST_IMAGES:
        return base, squares
    parts, pieces = torch.split(squares, base.forward_rows), []
    for part in parts:
        pieces.append(base.encode(part))
        if on_progress is not None:
            on_progress(len(pieces), len(parts))
    features = torch.cat(pieces)
    is_finite = torch.isfinite(features).all(dim=1)
    kept, count = features[is_finite], len(features)
    found = f"no numbers for {count - len(kept):,} of {count:,} images" if len(kept) < whitening.LEAST_IMAGES else ""
    if not found and (kept - kept[0]).abs().max() < _ALIKE:
        found = f"the same for all of {count:,} images"
    if found:
        remedy = "check the network's weights, or name another encoder"
        raise ConfigError(f"{base.name}: expected features that tell images apart, found {found}; {remedy}")
    return base.fitted(fit_whitening(kept)), squares
