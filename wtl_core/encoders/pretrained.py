"""Networks of others: timm's and torchvision's by name, weights from publishers or a local file, users' factories.

Weights are loaded without running code: safetensors, or torch's own format with `weights_only`.
"""

import hashlib
import importlib
import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from wtl_core.encoders.encoder import Encoder, build
from wtl_core.encoders.names import EncoderName
from wtl_core.encoders.preprocessing import Preprocessing, at_side
from wtl_core.errors import ConfigError

_HEADS = ("fc.", "classifier.", "head.", "heads.", "head_dist.")
"""Classifiers: a vector is taken before them, so their weights may be missing or left over."""

_MOST_DIMENSIONS = 8192

INCEPTIONS = ("googlenet", "inception_v3")
"""torchvision's networks that first bring images into a range of their own, and give several outputs in training."""


@dataclass(frozen=True)
class Foreign:
    """A network of others with its weights loaded, and how its images are prepared."""

    network: nn.Module
    preprocessing: Preprocessing
    licence: str


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
    try:
        if hasattr(network, "set_input_size"):
            network.set_input_size(img_size=side_px)
        with torch.no_grad():
            network(torch.zeros(1, 3, side_px, side_px))
    except Exception as error:
        # Networks say it by assertions, by shapes that do not fit and by types of their own.
        raise ConfigError(
            f"encoder.side_px: expected a side that {name.kind}:{name.value} can take, found {side_px} "
            f"({_first_line(error)}); try a multiple of 32 or of its patches, or leave it out"
        ) from error
    return replace(foreign, preprocessing=at_side(foreign.preprocessing, side_px))


def check_pooled(name: EncoderName, dimensions: int) -> None:
    """Refuse feature maps that the network leaves to its classifier to pool: vectors of them fill disk and memory."""
    if dimensions > _MOST_DIMENSIONS:
        raise ConfigError(
            f"{name.kind}:{name.value}: expected at most {_MOST_DIMENSIONS:,} dimensions, found {dimensions:,}, as its "
            "features are not pooled; take its namesake of timm where there is one, or a python: factory that pools"
        )


def fetch(name: EncoderName) -> Foreign:
    """The network that `name` says, with its weights, on the processor. Raises like `load_pretrained`."""
    return _fetch_timm(name) if name.kind == "timm" else _fetch_torchvision(name)


def bare_network(label: str) -> nn.Module:
    """A foreign network without weights or classifier, by `timm:NAME` or `torchvision:NAME`."""
    kind, _, value = label.partition(":")
    if kind == "timm":
        import timm  # here: 2 seconds that only these names pay

        network: nn.Module = timm.create_model(value, pretrained=False, num_classes=0)
        return network
    from torchvision import models  # here: only these names pay for it

    return _without_classifier(models.get_model(value, weights=None))


def _fetch_timm(name: EncoderName) -> Foreign:
    import timm
    from timm.data.config import resolve_model_data_config

    kept = name.value.partition(".")[0]
    # by name and not in `list_pretrained`, which leaves out the plain names that stand for a default tag
    is_known = kept in timm.list_models() and (name.weights_path or timm.models.is_model_pretrained(name.value))
    if not is_known:
        near = timm.list_models(f"*{kept[:8]}*", pretrained=True)[:6]
        raise ConfigError(f"timm:{name.value}: timm has no such network; near it: {', '.join(near) or 'none'}")
    try:
        network = timm.create_model(name.value, pretrained=name.weights_path is None, num_classes=0)
    except Exception as error:
        # The hub's client raises a dozen types of several packages when there is no network.
        config = timm.get_pretrained_cfg(name.value)
        where = f"https://huggingface.co/{config.hf_hub_id}/resolve/main/model.safetensors" if config else "its weights"
        raise _unreachable(name, where, error) from error
    if name.weights_path:
        _load(network, Path(name.weights_path), name)
    config = resolve_model_data_config(network)  # type: ignore[no-untyped-call]
    side = config["input_size"][-1]
    preprocessing = Preprocessing(
        side,
        "crop",
        max(side, round(side / config["crop_pct"])),
        "bicubic" if config["interpolation"] == "bicubic" else "bilinear",
        tuple(config["mean"]),
        tuple(config["std"]),
    )
    licence = str(getattr(network, "pretrained_cfg", {}).get("license", "see its publisher"))
    return Foreign(network, preprocessing, licence)


def _fetch_torchvision(name: EncoderName) -> Foreign:
    from torchvision import models

    known = models.list_models(module=models)
    if name.value not in known:
        near = [other for other in known if other.startswith(name.value[:4])][:6]
        raise ConfigError(f"torchvision:{name.value}: no such network; near it: {', '.join(near) or 'none'}")
    weights = models.get_model_weights(name.value).DEFAULT
    if name.weights_path:
        # what their builders set for published weights, which expect images in another range
        options = {"transform_input": True, "init_weights": False} if name.value in INCEPTIONS else {}
        network = models.get_model(name.value, weights=None, **options)
        _load(network, Path(name.weights_path), name)
    else:
        network = _published(name, weights)
    transform = weights.transforms()
    preprocessing = Preprocessing(
        transform.crop_size[0],
        "crop",
        transform.resize_size[0],
        "bicubic" if transform.interpolation.value == "bicubic" else "bilinear",
        tuple(transform.mean),
        tuple(transform.std),
    )
    return Foreign(_without_classifier(network), preprocessing, "BSD-3-Clause (code); data: see its publisher")


def _published(name: EncoderName, weights: Any) -> nn.Module:
    """The network with its published weights, from torchvision's cache if they are there.

    A file with code in it is refused first, since the builder would run that code: the cache may lie where others
    write, and hashes are checked on the way there alone.
    """
    from torchvision import models

    cached = Path(torch.hub.get_dir()) / "checkpoints" / weights.url.rpartition("/")[2]
    try:
        weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
        network: nn.Module = models.get_model(name.value, weights=weights)
    except Exception as error:
        # Without a network it fails in a dozen ways; a file that is there by now is at fault itself.
        if not cached.is_file():
            raise _unreachable(name, weights.url, error) from error
        raise ConfigError(
            f"{cached}: expected plain weights of torchvision:{name.value}, found a file that is broken, another "
            "network's, or holds code; delete it, and it is fetched again"
        ) from error
    return network


def _without_classifier(network: nn.Module) -> nn.Module:
    for head in ("fc", "classifier", "head", "heads"):
        if hasattr(network, head):
            setattr(network, head, nn.Identity())
    return network


def load_factory(name: EncoderName, *, device: torch.device) -> Encoder:
    """What a user's own `module:factory` returns: `(network, Preprocessing)`. The one form that runs a user's code.

    Modules are looked for in the current folder too, after the installed ones.

    Raises:
        ConfigError: the module or the factory is not there, or it returned something else.
    """
    module_name, _, factory_name = name.value.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)  # last: the console script lacks it, and a user's file must not hide an installed module
    try:
        module = importlib.import_module(module_name)
        factory = getattr(module, factory_name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"python:{name.value}: expected a function to import, found: {error}; mend the name, or run where the "
            "module lies"
        ) from error
    made = factory()
    if not (isinstance(made, tuple) and isinstance(made[0], nn.Module) and isinstance(made[-1], Preprocessing)):
        raise ConfigError(f"python:{name.value}: expected (nn.Module, Preprocessing), found {type(made).__name__}")
    # The same weights in a network that was written anew give other vectors.
    source = hashlib.sha256(Path(module.__file__).read_bytes()).hexdigest() if module.__file__ else ""
    return _build(made[0], name, made[1], device=device, licence="the user's own", source=source)


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


def _load(network: nn.Module, path: Path, name: EncoderName) -> None:
    """Read a weights file into `network`; only classifiers may be missing or left over."""
    if not path.is_file():
        raise ConfigError(f"{path}: expected a weights file for {name.kind}:{name.value}, found none; put it there")
    try:
        weights: dict[str, Any] = (
            load_file(path)
            if path.suffix == ".safetensors"
            else torch.load(path, map_location="cpu", weights_only=True)
        )
        missing, left = network.load_state_dict(weights, strict=False)
    except Exception as error:
        # A wrong file fails in as many ways as there are formats: unpickling, shapes, no mapping at all.
        raise ConfigError(
            f"{path}: expected weights of {name.kind}:{name.value}, found: {error}; check both"
        ) from error
    wrong = [key for key in (*missing, *left) if not key.startswith(_HEADS)]
    if wrong:
        raise ConfigError(
            f"{path}: expected weights of {name.kind}:{name.value}, but {len(wrong)} entries do not fit "
            f"(first: {wrong[0]}); name the network that the file belongs to"
        )


def _unreachable(name: EncoderName, where: str, error: Exception) -> ConfigError:
    label = f"{name.kind}:{name.value}"
    return ConfigError(
        f"{label}: expected to fetch its weights, could not ({_first_line(error)}); on a machine with a network "
        f"download {where}, copy the file here and name it: --encoder {label}@{os.sep}path{os.sep}to{os.sep}the-file"
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
