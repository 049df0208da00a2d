"""Encoders made by a user's own function, `python:MODULE:FACTORY`: the one form of name that runs a user's code.

Not here: which source files such an encoder's fingerprint covers (`factory_source`, which needs no torch).
"""

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from copy import deepcopy
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from wtl_core.encoders.encoder import Encoder, NumberFormat, build
from wtl_core.encoders.factory_source import digest, source_files
from wtl_core.encoders.foreign import first_line
from wtl_core.encoders.preprocessing import Preprocessing
from wtl_core.errors import ConfigError
from wtl_core.recipe.encoder_names import EncoderName


def load_factory(name: EncoderName, *, device: torch.device, number_format: NumberFormat | None = None) -> Encoder:
    """The encoder of the network and preprocessing that a user's `module:factory` returns.

    Modules are looked for in the current folder too, after the installed ones, until the network has run once. The
    module may keep its network: a copy is used where the network can be copied.

    Raises:
        ConfigError: the module or the factory is not there, it failed, or it returned something else.
    """
    label = f"python:{name.value}"
    with _current_folder_importable():
        module, made = _called(name.value, label)
        is_pair = isinstance(made, tuple) and len(made) == 2
        if not (is_pair and isinstance(made[0], nn.Module) and isinstance(made[1], Preprocessing)):
            raise ConfigError(f"{label}: expected (nn.Module, Preprocessing), found {type(made).__name__}")
        return build(
            _copied(made[0]),
            name=label,
            # the same weights in a network that was written anew give other vectors
            architecture={"network": label, "source": _source_digest(module)},
            preprocessing=made[1],
            device=device,
            number_format=number_format,
            card={"method": "pretrained", "network": label, "licence": "the user's own"},
        )


def _called(value: str, label: str) -> tuple[ModuleType, Any]:
    """The module, and what its factory returns."""
    module_name, _, factory_name = value.partition(":")
    try:
        module = importlib.import_module(module_name)
        factory = getattr(module, factory_name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"{label}: expected a function to import, found: {error}; mend the name, or run where the module lies"
        ) from error
    try:
        return module, factory()
    except Exception as error:
        raise ConfigError(
            f"{label}: expected (nn.Module, Preprocessing), it raised {type(error).__name__}: {first_line(error)}; "
            "mend the factory, --debug shows where"
        ) from error


@contextmanager
def _current_folder_importable() -> Iterator[None]:
    """The current folder as the last one that modules are looked for in; afterwards `sys.path` is as it was.

    The console script lacks it. Last, since a user's file must not hide an installed module.
    """
    here = str(Path.cwd())
    if here in sys.path:
        yield
        return
    sys.path.append(here)
    try:
        yield
    finally:
        with suppress(ValueError):  # the user's code may have changed the path too
            sys.path.remove(here)


def _copied(network: nn.Module) -> nn.Module:
    """A copy, or the network itself where it cannot be copied, such as one that holds a lock."""
    try:
        return deepcopy(network)
    except Exception:  # noqa: BLE001, anything that a network holds can refuse in its own way
        return network


@cache
def _source_digest(module: ModuleType) -> str:
    """Digest of the module's source and of what it imports, once a process: loaded code stays when files change."""
    return digest(source_files(module.__name__))
