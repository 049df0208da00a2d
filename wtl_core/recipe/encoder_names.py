"""What an encoder's name can say. Imports no torch: the command line checks a name before anything starts."""

import difflib
import os
import re
from dataclasses import dataclass
from typing import Literal

from wtl_core.errors import ConfigError

Kind = Literal["auto", "ssl", "pixels", "package", "timm", "torchvision", "file", "python", "fingerprint", "folder"]

FORMS = (
    "auto",
    "ssl",
    "pixels",
    "package:NAME",
    "timm:NAME",
    "torchvision:NAME",
    "file:PATH",
    "python:MODULE:FACTORY",
    "a fingerprint of this workspace",
    "the path of an encoder's folder in a workspace",
)
"""Every valid form, as messages show them. `timm:NAME@PATH` and `torchvision:NAME@PATH` take weights from a file,
`package:NAME+NAME` is two networks side by side."""

BEGINNINGS = ("auto", "ssl", "pixels", "package:", "timm:", "torchvision:", "file:", "python:")
"""Whole names, and what names of the other forms begin with."""

_FINGERPRINT = re.compile(r"[0-9a-f]{64}")
_ARCHITECTURE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]*")
_PACKAGED = re.compile(rf"{_ARCHITECTURE.pattern}(\+{_ARCHITECTURE.pattern})*")
_FACTORY = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


@dataclass(frozen=True)
class EncoderName:
    """A parsed name.

    Attributes:
        kind: Which form it has.
        value: What stands behind the prefix: network, file, `module:factory`, fingerprint or folder.
        weights_path: Local weights of a timm or torchvision network; None takes the published ones.
    """

    kind: Kind
    value: str
    weights_path: str | None = None


def parse_name(name: str) -> EncoderName:
    """What `name` says. Looks at no file and no registry.

    Raises:
        ConfigError: the form is unknown; the message lists the valid ones.
    """
    if name in ("auto", "ssl", "pixels"):
        return EncoderName(name, name)  # type: ignore[arg-type]  # the three literals
    if _FINGERPRINT.fullmatch(name):
        return EncoderName("fingerprint", name)
    prefix, colon, rest = name.partition(":")
    if colon and prefix in ("timm", "torchvision"):
        architecture, at, weights = rest.partition("@")
        if not _ARCHITECTURE.fullmatch(architecture) or (at and not weights):
            raise _unknown(name)
        return EncoderName(prefix, architecture, weights or None)  # type: ignore[arg-type]
    if colon and prefix == "package" and _PACKAGED.fullmatch(rest):
        return EncoderName("package", rest)
    if colon and prefix == "file" and rest:
        return EncoderName("file", rest)
    if colon and prefix == "python" and _FACTORY.fullmatch(rest):
        return EncoderName("python", rest)
    if "/" in name and (not colon or name.startswith("s3://")):
        return EncoderName("folder", name.rstrip("/"))
    raise _unknown(name)


def absolute(name: str) -> str:
    """`name` with the local path that it holds made absolute and `~` expanded, as sources are.

    A workspace keeps the name, and later runs read it from other folders. Names without a path, and those whose path is
    absolute, stay as they are. Raises ConfigError as `parse_name` does.
    """
    parsed = parse_name(name)
    if parsed.kind == "file":
        return f"file:{_absolute(parsed.value)}"
    if parsed.weights_path is not None:
        return f"{parsed.kind}:{parsed.value}@{_absolute(parsed.weights_path)}"
    if parsed.kind == "folder" and not name.startswith(("/", "s3://")):
        return _absolute(parsed.value)
    return name


def _absolute(path: str) -> str:
    return path if os.path.isabs(path) else os.path.abspath(os.path.expanduser(path))  # noqa: PTH100, PTH111, PTH117 (links are kept)


def check_side(name: str, side_px: int | None) -> None:
    """Refuse an image side for an encoder that brings its own.

    Raises:
        ConfigError: `encoder.side_px` is set, and `name` is neither `ssl` nor a package's, timm's or torchvision's.
    """
    if side_px is not None and parse_name(name).kind not in ("ssl", "package", "timm", "torchvision"):
        raise ConfigError(
            "encoder.side_px: expected it with ssl, package:NAME, timm:NAME or torchvision:NAME alone, found "
            f"{side_px} with {name!r}, which sets its side itself; leave it out"
        )


def is_made_here(name: str) -> bool:
    """Whether an encoder of this name is made from the pool and kept in the workspace: trained, or fitted to it.

    The others come as they are: the training-free one, and those that a workspace made before.
    """
    return parse_name(name).kind not in ("pixels", "file", "folder", "fingerprint")


def _unknown(name: str) -> ConfigError:
    nearest = difflib.get_close_matches(name.partition(":")[0] + ":" * (":" in name), BEGINNINGS, n=1, cutoff=0.6)
    advice = f"did you mean {nearest[0]!r}? " if nearest else ""
    return ConfigError(f"encoder {name!r}: expected one of {', '.join(FORMS)}; {advice}name one of these")
