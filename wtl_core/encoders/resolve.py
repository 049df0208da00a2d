"""From an encoder's name to an encoder that runs."""

from dataclasses import dataclass
from pathlib import Path

import torch

from wtl_core.encoders.cards import FOLDER, WEIGHTS, from_weights, load_encoder, read_weights
from wtl_core.encoders.encoder import Encoder
from wtl_core.encoders.factory import load_factory
from wtl_core.encoders.foreign import INCEPTIONS, fetch
from wtl_core.encoders.networks import NetworkShape
from wtl_core.encoders.pixels import pixels
from wtl_core.encoders.preprocessing import Preprocessing, from_json
from wtl_core.encoders.pretrained import check_pooled, check_side_as_built, load_pretrained
from wtl_core.encoders.whitening import split
from wtl_core.errors import ConfigError
from wtl_core.recipe.encoder_names import parse_name
from wtl_core.workspace.storage import Store, open_store


def resolve(name: str, store: Store, *, device: torch.device | str, side_px: int | None = None) -> Encoder:
    """The encoder of this name, loaded on `device`.

    Args:
        name: Any form of `encoder_names.FORMS` except `ssl`, which has to be trained first (`training.train` returns a
            fingerprint).
        store: The workspace, for fingerprints.
        device: Where it will run.
        side_px: Image side of a timm or torchvision network; None for its publisher's. Others have their own.

    Raises:
        ConfigError: unknown form, unknown network, missing weights, or a side that the network cannot take.
        CorruptArtifactError: the weights do not match their card.
    """
    device = torch.device(device)
    parsed = parse_name(name)
    if parsed.kind == "pixels":
        return pixels(device)
    if parsed.kind in ("timm", "torchvision"):
        return load_pretrained(parsed, device=device, side_px=side_px)
    if parsed.kind == "python":
        return load_factory(parsed, device=device)
    if parsed.kind == "fingerprint":
        return load_encoder(store, parsed.value, device=device)
    if parsed.kind == "file":
        return _load_file(Path(parsed.value).expanduser(), device)
    if parsed.kind == "folder":
        return _load_folder(parsed.value, device)
    raise ConfigError("encoder 'ssl': expected one that is trained already; run `wtl train-encoder`, or name another")


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
        load_encoder(home, digest, device=torch.device("cpu"))  # refuses missing and changed weights
        data, where = home.read_bytes(f"{FOLDER}/{digest}/{WEIGHTS}"), home.path(f"{FOLDER}/{digest}")
    else:
        raise ConfigError(
            f"encoder.start {name!r}: expected weights to go on from; name a trained or pretrained encoder"
        )
    held, head = read_weights(data, where=where)
    weights, _ = split(held)
    return Start(NetworkShape(**head["network"]), weights, from_json(head["preprocessing"]))


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
    return load_encoder(store, digest, device=device)


def _split_folder(path: str) -> tuple[Store, str]:
    """Workspace and fingerprint of an encoder's folder, `<workspace>/encoders/<fingerprint>`."""
    root, _, digest = path.rpartition("/")
    root, slash, folder = root.rpartition("/")
    if folder != FOLDER:
        raise ConfigError(f"encoder {path}: expected the path of an encoder, <workspace>/{FOLDER}/<fingerprint>")
    return open_store(root or slash or "."), digest
