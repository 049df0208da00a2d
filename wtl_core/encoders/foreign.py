"""Networks of timm and torchvision by name, with weights from their publishers or from a local file.

Weights are loaded without running code: safetensors, or torch's own format with `weights_only`.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from wtl_core.encoders.preprocessing import Preprocessing
from wtl_core.errors import ConfigError
from wtl_core.recipe.encoder_names import EncoderName

_HEADS = ("fc", "classifier", "head", "heads", "head_dist")
"""Classifiers by their usual names: a vector is taken before them, so a file may have weights left over for them."""


_WRAPPERS = ("state_dict", "model", "model_state_dict")
"""Where training scripts put a network's weights in what they save."""


INCEPTIONS = ("googlenet", "inception_v3")
"""torchvision's networks that first bring images into a range of their own, and give several outputs in training."""


@dataclass(frozen=True)
class Foreign:
    """A network of timm or torchvision with its weights loaded, and the preprocessing that it was published with."""

    network: nn.Module
    preprocessing: Preprocessing
    licence: str


def fetch(name: EncoderName) -> Foreign:
    """The network of this name with its weights, on the processor. Raises like `load_pretrained`."""
    with torch.random.fork_rng(devices=[]):  # their first weights are random, and then replaced
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
    tag = name.value.partition(".")[2]
    if is_known and tag and name.value not in timm.list_pretrained(f"{kept}.*"):
        tags = ", ".join(timm.list_pretrained(f"{kept}.*")[:6])
        raise ConfigError(f"timm:{name.value}: timm has no such weights of {kept}, but {tags or 'none'}; name one")
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
        own = getattr(network, "pretrained_cfg", {}).get("classifier") or ()
        _load(network, name, left=(*_HEADS, *((own,) if isinstance(own, str) else own)))
    config = resolve_model_data_config(network)  # type: ignore[no-untyped-call]
    _, height, side = config["input_size"]
    is_squashed = config.get("crop_mode") == "squash"
    if height != side or config.get("crop_mode") == "border":
        raise ConfigError(
            f"timm:{name.value}: expected a network of squares that images are cropped or squashed to, found one of "
            f"{height} x {side} px, {config.get('crop_mode')}; take another, or a python: factory"
        )
    preprocessing = Preprocessing(
        side,
        "squash" if is_squashed else "crop",
        side if is_squashed else max(side, round(side / config["crop_pct"])),
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
        _load(network, name, missing=tuple(head for head in _REPLACED if hasattr(network, head)), left=_HEADS)
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
        # Without a connection it fails in a dozen ways; where the file is in the cache, the file itself is at fault.
        if not cached.is_file():
            raise _unreachable(name, weights.url, error) from error
        raise ConfigError(
            f"{cached}: expected plain weights of torchvision:{name.value}, found a file that is broken, another "
            "network's, or holds code; delete it, and it is fetched again"
        ) from error
    return network


_REPLACED = ("fc", "classifier", "head", "heads")


def _without_classifier(network: nn.Module) -> nn.Module:
    for head in _REPLACED:
        if hasattr(network, head):
            setattr(network, head, nn.Identity())
    return network


def _load(network: nn.Module, name: EncoderName, *, missing: tuple[str, ...] = (), left: tuple[str, ...] = ()) -> None:
    """Load the weights file of `name` into `network`.

    `missing` and `left` are names of classifiers, whose weights the file may lack or have in addition.
    """
    assert name.weights_path is not None
    path = Path(name.weights_path).expanduser()
    if not path.is_file():
        raise ConfigError(
            f"{path.absolute()}: expected a weights file for {name.kind}:{name.value}, found none; put it there"
        )
    try:
        weights: dict[str, Any] = (
            load_file(path)
            if path.suffix == ".safetensors"
            else torch.load(path, map_location="cpu", weights_only=True)
        )
        lacking, over = network.load_state_dict(_unwrapped(weights), strict=False)
    except Exception as error:
        # A wrong file fails in as many ways as there are formats: unpickling, shapes, no mapping at all.
        raise ConfigError(
            f"{path}: expected weights of {name.kind}:{name.value}, found: {error}; check both"
        ) from error
    wrong = [key for key in lacking if not _is_of(key, missing)] + [key for key in over if not _is_of(key, left)]
    if wrong:
        raise ConfigError(
            f"{path}: expected weights of {name.kind}:{name.value}, but {len(wrong)} entries do not fit "
            f"(first: {wrong[0]}); name the network that the file belongs to"
        )


def _unwrapped(weights: dict[str, Any]) -> dict[str, Any]:
    """The weights in what a training script saved, without the prefix that training on several devices adds."""
    for wrapper in _WRAPPERS:
        if isinstance(weights.get(wrapper), dict):
            weights = weights[wrapper]
            break
    if weights and all(key.startswith("module.") for key in weights):
        return {key.removeprefix("module."): value for key, value in weights.items()}
    return weights


def _is_of(key: str, modules: tuple[str, ...]) -> bool:
    return key.startswith(tuple(f"{module}." for module in modules))


def _unreachable(name: EncoderName, where: str, error: Exception) -> ConfigError:
    label = f"{name.kind}:{name.value}"
    return ConfigError(
        f"{label}: expected to fetch its weights, could not ({first_line(error)}); on a machine with a network "
        f"download {where}, copy the file here and name it: --encoder {label}@{os.sep}path{os.sep}to{os.sep}the-file"
    )


def first_line(error: Exception) -> str:
    """The first line of an error's message, or its type where it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
