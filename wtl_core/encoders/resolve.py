"""From an encoder's name to an encoder that runs."""

from pathlib import Path

import torch

from wtl_core.encoders.cards import FOLDER, from_weights, load_encoder
from wtl_core.encoders.encoder import Encoder
from wtl_core.encoders.names import parse_name
from wtl_core.encoders.pixels import pixels
from wtl_core.encoders.pretrained import load_factory, load_timm, load_torchvision
from wtl_core.errors import ConfigError
from wtl_core.storage import Store, open_store


def resolve(name: str, store: Store, *, device: torch.device | str) -> Encoder:
    """The encoder that `name` says, loaded on `device`.

    Args:
        name: Any form of `names.FORMS` but `ssl`, which has to be trained first (`training.train` gives a fingerprint).
        store: The workspace, for fingerprints.
        device: Where it will run.

    Raises:
        ConfigError: unknown form, unknown network, or weights that are not there.
        CorruptArtifactError: weights that are not what their card says.
    """
    device = torch.device(device)
    parsed = parse_name(name)
    if parsed.kind == "pixels":
        return pixels(device)
    if parsed.kind == "timm":
        return load_timm(parsed, device=device)
    if parsed.kind == "torchvision":
        return load_torchvision(parsed, device=device)
    if parsed.kind == "python":
        return load_factory(parsed, device=device)
    if parsed.kind == "fingerprint":
        return load_encoder(store, parsed.value, device=device)
    if parsed.kind == "file":
        return _load_file(Path(parsed.value).expanduser(), device)
    if parsed.kind == "folder":
        return _load_folder(parsed.value, device)
    raise ConfigError("encoder 'ssl': expected one that is trained already; run `wtl train-encoder`, or name another")


def _load_file(path: Path, device: torch.device) -> Encoder:
    if not path.is_file():
        raise ConfigError(f"file:{path}: expected a weights file, found none; check the path")
    if path.suffix != ".safetensors":
        raise ConfigError(
            f"file:{path}: expected a .safetensors file that wtl wrote; other files need their network's name: "
            f"timm:NAME@{path} or torchvision:NAME@{path}"
        )
    return from_weights(path.read_bytes(), where=str(path), device=device)


def _load_folder(path: str, device: torch.device) -> Encoder:
    """An encoder's folder in some workspace, `<workspace>/encoders/<fingerprint>`."""
    root, _, digest = path.rpartition("/")
    root, _, folder = root.rpartition("/")
    if folder != FOLDER:
        raise ConfigError(f"encoder {path}: expected the path of an encoder, <workspace>/{FOLDER}/<fingerprint>")
    return load_encoder(open_store(root or "/"), digest, device=device)
