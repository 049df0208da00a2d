"""Names of encoders: every valid form is read, everything else is refused before anything starts."""

import subprocess
import sys
from pathlib import Path

import pytest

from wtl_core.errors import ConfigError
from wtl_core.recipe.encoder_names import EncoderName, absolute, parse_name

FINGERPRINT = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("name", "parsed"),
    [
        ("ssl", EncoderName("ssl", "ssl")),
        ("pixels", EncoderName("pixels", "pixels")),
        ("timm:vit_small_patch14_dinov2.lvd142m", EncoderName("timm", "vit_small_patch14_dinov2.lvd142m")),
        ("torchvision:resnet50", EncoderName("torchvision", "resnet50")),
        ("timm:resnet18@/w/a@b.safetensors", EncoderName("timm", "resnet18", "/w/a@b.safetensors")),
        ("file:weights.safetensors", EncoderName("file", "weights.safetensors")),
        ("python:my.nets:build", EncoderName("python", "my.nets:build")),
        (FINGERPRINT, EncoderName("fingerprint", FINGERPRINT)),
        (f"/w/encoders/{FINGERPRINT}/", EncoderName("folder", f"/w/encoders/{FINGERPRINT}")),
        (f"s3://bucket/w/encoders/{FINGERPRINT}", EncoderName("folder", f"s3://bucket/w/encoders/{FINGERPRINT}")),
    ],
)
def test_every_form_is_read(name: str, parsed: EncoderName) -> None:
    assert parse_name(name) == parsed


@pytest.mark.parametrize(
    "name",
    [
        "",
        "SSL",
        "resnet50",
        "timm:",
        "timm:a b",
        "timm:resnet18@",
        "file:",
        "python:os",
        "python:os:system()",
        "hub:a/b",
    ],
)
def test_another_form_is_refused_and_the_valid_ones_are_named(name: str) -> None:
    with pytest.raises(ConfigError, match=r"expected one of auto, ssl, pixels, package:NAME, timm:NAME"):
        parse_name(name)


def test_relative_paths_are_made_absolute_and_other_names_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    for name, expected in (
        ("file:w.safetensors", f"file:{tmp_path}/w.safetensors"),
        ("file:../w.safetensors", f"file:{tmp_path.parent}/w.safetensors"),
        ("file:~/w.safetensors", "file:/home/me/w.safetensors"),
        ("timm:resnet18@a/w@b.pth", f"timm:resnet18@{tmp_path}/a/w@b.pth"),
        ("torchvision:resnet50@w.pth", f"torchvision:resnet50@{tmp_path}/w.pth"),
        (f"encoders/{FINGERPRINT}/", f"{tmp_path}/encoders/{FINGERPRINT}"),
    ):
        assert absolute(name) == expected
        assert absolute(expected) == expected
    for name in (
        *("ssl", "pixels", "timm:resnet18", "python:my.nets:build", FINGERPRINT, "file:/w.safetensors"),
        *(f"/w/encoders/{FINGERPRINT}/", f"s3://bucket/w/encoders/{FINGERPRINT}"),
    ):
        assert absolute(name) == name


def test_a_slip_of_the_pen_is_answered_with_the_nearest_form() -> None:
    with pytest.raises(ConfigError, match="did you mean 'pixels'"):
        parse_name("pixel")
    with pytest.raises(ConfigError, match="did you mean 'torchvision:'"):
        parse_name("torchvison:resnet18")


def test_names_are_checked_without_torch() -> None:
    code = "import sys, wtl_core.recipe.encoder_names; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"
