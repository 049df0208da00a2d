"""Encoders made of networks of others: timm's and torchvision's (`foreign`), and what a user's own factory returns."""

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from wtl_core.encoders.encoder import Encoder, build
from wtl_core.encoders.factory_source import digest, source_files
from wtl_core.encoders.foreign import Foreign, fetch, first_line
from wtl_core.encoders.preprocessing import Preprocessing, at_side
from wtl_core.errors import ConfigError
from wtl_core.recipe.encoder_names import EncoderName

_MOST_DIMENSIONS = 8192


def load_pretrained(name: EncoderName, *, device: torch.device, side_px: int | None = None) -> Encoder:
    """A timm or torchvision network's pooled features, at another side than its publisher's if one is given.

    Raises:
        ConfigError: there is no such network, its weights cannot be had (the message says which file to put where),
            its features are not pooled, or it cannot take the side.
    """
    foreign = fetch(name)
    if side_px is not None:
        foreign = _at_side(foreign, name, side_px)
    encoder = _build(foreign.network, name, foreign.preprocessing, device=device, licence=foreign.licence)
    check_pooled(name, encoder.dimensions)
    return encoder


def _at_side(foreign: Foreign, name: EncoderName, side_px: int) -> Foreign:
    """The network at another side; of position embeddings timm makes new ones out of the given ones."""
    network: Any = foreign.network.eval()
    with _takes_side(name, side_px):
        if hasattr(network, "set_input_size"):
            network.set_input_size(img_size=side_px)
        with torch.no_grad():
            network(torch.zeros(1, 3, side_px, side_px))
    return replace(foreign, preprocessing=at_side(foreign.preprocessing, side_px))


def check_side_as_built(name: EncoderName, foreign: Foreign, side_px: int) -> None:
    """Refuse a side that the network cannot take without being built anew for it. Raises ConfigError."""
    with _takes_side(name, side_px), torch.no_grad():
        foreign.network.eval()(torch.zeros(1, 3, side_px, side_px))


@contextmanager
def _takes_side(name: EncoderName, side_px: int) -> Iterator[None]:
    """What a network says of a side that it cannot take, as a ConfigError."""
    try:
        yield
    except Exception as error:
        # Networks say it by assertions, by shapes that do not fit and by types of their own.
        raise ConfigError(
            f"encoder.side_px: expected a side that {name.kind}:{name.value} can take, found {side_px} "
            f"({first_line(error)}); try a multiple of 32 or of its patches, or leave it out"
        ) from error


def check_pooled(name: EncoderName, dimensions: int) -> None:
    """Refuse feature maps that the network leaves to its classifier to pool: vectors of them fill disk and memory."""
    if dimensions > _MOST_DIMENSIONS:
        raise ConfigError(
            f"{name.kind}:{name.value}: expected at most {_MOST_DIMENSIONS:,} dimensions, found {dimensions:,}, as its "
            "features are not pooled; take its namesake of timm where there is one, or a python: factory that pools"
        )


def load_factory(name: EncoderName, *, device: torch.device) -> Encoder:
    """What a user's own `module:factory` returns: `(network, Preprocessing)`. The one form that runs a user's code.

    Modules are looked for in the current folder too, after the installed ones. The network may be one that the module
    keeps: a copy of it is used, where it can be copied.

    Raises:
        ConfigError: the module or the factory is not there, it failed, or it returned something else.
    """
    label = f"python:{name.value}"
    module_name, _, factory_name = name.value.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)  # last: the console script lacks it, and a user's file must not hide an installed module
    try:
        module = importlib.import_module(module_name)
        factory = getattr(module, factory_name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"{label}: expected a function to import, found: {error}; mend the name, or run where the module lies"
        ) from error
    try:
        made = factory()
    except Exception as error:
        raise ConfigError(
            f"{label}: expected (nn.Module, Preprocessing), it raised {type(error).__name__}: {first_line(error)}; "
            "mend the factory, --debug shows where"
        ) from error
    is_pair = isinstance(made, tuple) and len(made) == 2
    if not (is_pair and isinstance(made[0], nn.Module) and isinstance(made[1], Preprocessing)):
        raise ConfigError(f"{label}: expected (nn.Module, Preprocessing), found {type(made).__name__}")
    # the same weights in a network that was written anew give other vectors
    source = _source_digest(module)
    return _build(_copied(made[0]), name, made[1], device=device, licence="the user's own", source=source)


def _copied(network: nn.Module) -> nn.Module:
    """The network itself where it cannot be copied: what holds a lock or computed weights is made anew each time."""
    try:
        return deepcopy(network)
    except Exception:  # noqa: BLE001, anything that a network holds can refuse in its own way
        return network


@cache
def _source_digest(module: ModuleType) -> str:
    """Of the module's source and what it imports, once a process: the code that is loaded stays when files change."""
    return digest(source_files(module.__name__))


def _build(
    network: nn.Module,
    name: EncoderName,
    preprocessing: Preprocessing,
    *,
    device: torch.device,
    licence: str,
    source: str | None = None,
) -> Encoder:
    """The encoder; `source` is a digest of the code that made the network, where no library's version stands for it."""
    label = f"{name.kind}:{name.value}"
    return build(
        network,
        name=label,
        architecture={"network": label} if source is None else {"network": label, "source": source},
        preprocessing=preprocessing,
        device=device,
        card={"method": "pretrained", "network": label, "licence": licence},
    )
