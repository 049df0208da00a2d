"""From an encoder's name to an encoder that runs."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from wtl_core.encoders.cards import (
    FOLDER,
    WEIGHTS,
    from_weights,
    load_card,
    load_encoder,
    load_whitening,
    read_weights,
)
from wtl_core.encoders.encoder import Encoder, NumberFormat, build
from wtl_core.encoders.factory import load_factory
from wtl_core.encoders.foreign import INCEPTIONS, fetch
from wtl_core.encoders.networks import NetworkShape, trained_part
from wtl_core.encoders.packages import known, load_packaged
from wtl_core.encoders.pixels import pixels
from wtl_core.encoders.preprocessing import Preprocessing, at_side, from_json
from wtl_core.encoders.pretrained import check_pooled, check_side_as_built, load_pretrained
from wtl_core.encoders.whitening import split
from wtl_core.errors import ConfigError, TransientError
from wtl_core.recipe.encoder_names import parse_name
from wtl_core.workspace.storage import Store, open_store


def resolve(
    name: str,
    store: Store,
    *,
    device: torch.device | str,
    side_px: int | None = None,
    number_format: NumberFormat | None = None,
) -> Encoder:
    """The encoder of this name, loaded on `device`.

    Args:
        name: Any form of `encoder_names.FORMS` except `auto` and `ssl`, which are made from a pool first
            (`training.fitting` and `training.training` return a fingerprint). Networks of packages, timm, torchvision
            and factories are given as they are, not fitted to a pool.
        store: The workspace, for fingerprints.
        device: Where it will run.
        side_px: Image side of a package's, timm's or torchvision's network; None for their own. Others have one.
        number_format: What a package's, timm's, torchvision's or factory's network computes in; None for the device's
            own. Others have one.

    Raises:
        ConfigError: unknown form, unknown network, missing weights, or a side that the network cannot take.
        CorruptArtifactError: the weights do not match their card.
        TransientError: the network that an encoder of the workspace was fitted with has other weights now.
    """
    device = torch.device(device)
    parsed = parse_name(name)
    if parsed.kind == "pixels":
        return pixels(device)
    if parsed.kind == "package":
        return _packaged(parsed.value, device, side_px, number_format)
    if parsed.kind in ("timm", "torchvision"):
        return load_pretrained(parsed, device=device, side_px=side_px, number_format=number_format)
    if parsed.kind == "python":
        return load_factory(parsed, device=device, number_format=number_format)
    if parsed.kind == "fingerprint":
        return _load_kept(store, parsed.value, device)
    if parsed.kind == "file":
        return _load_file(Path(parsed.value).expanduser(), device)
    if parsed.kind == "folder":
        return _load_folder(parsed.value, device)
    raise ConfigError(f"encoder {name!r}: expected one that is made already; run `wtl run`, or name another")


def _packaged(name: str, device: torch.device, side_px: int | None, number_format: NumberFormat | None) -> Encoder:
    network, preprocessing = load_packaged(name)
    if side_px is not None:
        preprocessing = at_side(preprocessing, side_px)
    label, weights = f"package:{name}", known(name)
    card = {
        "method": "pretrained",
        "network": label,
        "licence": "; ".join(dict.fromkeys(one.licence for one in weights)),
        "origin": "; ".join(dict.fromkeys(one.origin for one in weights)),
    }
    shape = NetworkShape(label, network.dimensions)
    return build(
        network,
        name=label,
        architecture=shape.to_json(),
        preprocessing=preprocessing,
        device=device,
        number_format=number_format,
        card=card,
    )


def _load_kept(store: Store, digest: str, device: torch.device) -> Encoder:
    """An encoder of a workspace: from its own weights, or a named network with the whitening that was kept."""
    card = load_card(store, digest)
    if card is None or "base" not in card:
        return load_encoder(store, digest, device=device)
    name, side_px = card["base"]["name"], card["base"]["side_px"]
    # on a device of another number format too, whose own would give other vectors
    base = resolve(name, store, device=device, side_px=side_px, number_format=card.get("number_format"))
    encoder = base.fitted(load_whitening(store, digest))
    if encoder.fingerprint == digest:
        return replace(encoder, card=card)
    raise other_weights(name)


def other_weights(name: str) -> ConfigError | TransientError:
    """What is wrong where the network of this name has other weights than when it was first loaded."""
    if parse_name(name).kind == "python":
        return ConfigError(
            f"{name}: expected the same weights each time that the factory is called, found others; "
            "seed it, or let it load a file"
        )
    return TransientError(f"{name}: the weights were replaced while they were in use; run again")


@dataclass(frozen=True)
class Start:
    """Weights that training starts from, and the network that they belong to."""

    shape: NetworkShape
    weights: dict[str, torch.Tensor]
    preprocessing: Preprocessing


def start_from(name: str, store: Store, *, side_px: int | None = None) -> Start:
    """The weights of this name, to be trained further: pretrained ones, or an encoder trained here or elsewhere.

    `side_px` is the image side to train at, None for its own.

    Raises:
        ConfigError: a form or network that cannot be trained further, or not at that side, or missing weights.
        CorruptArtifactError: the weights do not match their card.
    """
    parsed = parse_name(name)
    if parsed.kind == "package":
        network, preprocessing = load_packaged(parsed.value)
        return Start(NetworkShape(name, network.dimensions), network.state_dict(), preprocessing)
    if parsed.kind == "torchvision" and parsed.value in INCEPTIONS:
        raise ConfigError(
            f"encoder.start {name!r}: expected a network with one output in training, found several; start from "
            "another one, such as torchvision:resnet50"
        )
    if parsed.kind in ("timm", "torchvision"):
        foreign = fetch(parsed)
        side = foreign.preprocessing.side_px
        if side_px is not None and side_px != side:
            check_side_as_built(parsed, foreign, side_px)
        with torch.no_grad():
            dimensions = foreign.network.eval()(torch.zeros(1, 3, side, side)).flatten(1).shape[1]
        check_pooled(parsed, dimensions)
        shape = NetworkShape(f"{parsed.kind}:{parsed.value}", dimensions // 8)
        return Start(shape, foreign.network.state_dict(), foreign.preprocessing)
    if parsed.kind == "file":
        path = Path(parsed.value).expanduser()
        data, where = _read_file(path), str(path)
    elif parsed.kind in ("fingerprint", "folder"):
        is_here = parsed.kind == "fingerprint"
        home, digest = (store, parsed.value) if is_here else _split_folder(parsed.value)
        if "base" in (card := load_card(home, digest) or {}):
            return start_from(card["base"]["name"], store, side_px=side_px)
        load_encoder(home, digest, device=torch.device("cpu"))  # refuses missing and changed weights
        data, where = home.read_bytes(f"{FOLDER}/{digest}/{WEIGHTS}"), home.path(f"{FOLDER}/{digest}")
    else:
        raise ConfigError(
            f"encoder.start {name!r}: expected weights to go on from; name a trained or pretrained encoder"
        )
    held, head = read_weights(data, where=where)
    weights, _ = split(held)
    return Start(*trained_part(NetworkShape(**head["network"]), weights), from_json(head["preprocessing"]))


def _load_file(path: Path, device: torch.device) -> Encoder:
    return from_weights(_read_file(path), where=str(path), device=device)


def _read_file(path: Path) -> bytes:
    if not path.is_file():
        raise ConfigError(f"file:{path}: expected a weights file, found none at {path.absolute()}; check the path")
    if path.suffix != ".safetensors":
        raise ConfigError(
            f"file:{path}: expected a .safetensors file that wtl wrote; other files need their network's name: "
            f"timm:NAME@{path} or torchvision:NAME@{path}"
        )
    return path.read_bytes()


def _load_folder(path: str, device: torch.device) -> Encoder:
    store, digest = _split_folder(path)
    return _load_kept(store, digest, device)


def _split_folder(path: str) -> tuple[Store, str]:
    """Workspace and fingerprint of an encoder's folder, `<workspace>/encoders/<fingerprint>`."""
    root, _, digest = path.rpartition("/")
    root, slash, folder = root.rpartition("/")
    if folder != FOLDER:
        raise ConfigError(f"encoder {path}: expected the path of an encoder, <workspace>/{FOLDER}/<fingerprint>")
    return open_store(root or slash or "."), digest
