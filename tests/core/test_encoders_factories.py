"""Encoders that a user's own code builds."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.forked import forked
from tests.small_encoders import FACTORY
from wtl_core.encoders.resolve import resolve
from wtl_core.errors import ConfigError
from wtl_core.workspace.storage import Store


def test_a_users_own_factory_is_called(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_nets.py").write_text(
        "from torch import nn\nfrom wtl_core.encoders.preprocessing import Preprocessing\n"
        "def build():\n    return nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten()), Preprocessing(16)\n"
        "def wrong():\n    return 3\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    encoder = resolve("python:my_nets:build", store, device="cpu")
    assert (encoder.dimensions, encoder.side_px) == (12, 16)
    monkeypatch.delitem(sys.modules, "my_nets")
    (tmp_path / "my_nets.py").write_text((tmp_path / "my_nets.py").read_text().replace("AdaptiveAvg", "AdaptiveMax"))
    os.utime(tmp_path / "my_nets.py", (1, 1))  # not the time that the compiled file names
    assert resolve("python:my_nets:build", store, device="cpu").fingerprint != encoder.fingerprint
    with pytest.raises(ConfigError, match="found int"):
        resolve("python:my_nets:wrong", store, device="cpu")
    with pytest.raises(ConfigError, match="expected a function to import"):
        resolve("python:my_nets:nothing", store, device="cpu")


def test_a_network_that_its_module_keeps_stays_what_it_is(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "kept_nets.py").write_text(FACTORY)
    monkeypatch.syspath_prepend(str(tmp_path))
    first = resolve("python:kept_nets:kept", store, device="cpu")
    assert resolve("python:kept_nets:kept", store, device="cpu").fingerprint == first.fingerprint
    kept = sys.modules["kept_nets"].NET
    assert kept[0].weight.dtype == torch.float32
    assert isinstance(kept[1], torch.nn.BatchNorm2d)


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("pair", "found tuple of 2 images"),
        ("flat", r"found \(2,\) of 2 images"),
        ("one", r"found \(1, 3, 32, 32\) of 2 images"),
        ("none", "found tuple"),
        ("broken", "it raised FileNotFoundError: weights.bin; mend the factory"),
    ],
)
def test_what_a_factory_gets_wrong_is_said(
    factory: str, message: str, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "wrong_nets.py").write_text(FACTORY)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigError, match=message):
        resolve(f"python:wrong_nets:{factory}", store, device="cpu")


def test_the_code_that_a_factory_imports_is_part_of_the_fingerprint(store: Store, tmp_path: Path) -> None:
    """Also constants, what functions import, and packages without `__init__.py`; not what is installed."""
    files = {
        "plain/models/net.py": "from .parts import GAIN\n" + FACTORY.replace("def kept", "def build"),
        "plain/models/parts.py": "import json\nGAIN = 1.0\n",
        "late.py": FACTORY.replace(
            "def kept():", "def build():\n    import helper, torch, wtl_core.refresh.planning\n   "
        ),
        "helper.py": "WIDTH = 3\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    code = (
        "import sys\nimport numpy, torch  # without our package's own modules\nsys.dont_write_bytecode = True\n"
        "def work(module):\n"
        "    from wtl_core.encoders.resolve import resolve\n    from wtl_core.workspace.storage import open_store\n"
        "    from wtl_core.encoders.factory_source import source_files\n"
        "    print([path.name for path in source_files(module)])\n"
        "    print(resolve(f'python:{module}:build', open_store('w'), device='cpu').fingerprint)\n"
    )
    with forked(code, cwd=tmp_path) as processes:
        for module, imported, sources in (
            ("plain.models.net", "plain/models/parts.py", "['net.py', 'parts.py']"),
            ("late", "helper.py", "['helper.py', 'late.py']"),
        ):
            status, first = processes.run(module)
            assert (status, first[0]) == (0, sources)
            assert processes.run(module) == (0, first)
            (tmp_path / imported).write_text("GAIN = WIDTH = 7\n")
            status, changed = processes.run(module)
            assert (status, changed[0]) == (0, sources)
            assert changed[1] != first[1]


def test_a_network_that_cannot_be_copied_is_taken_as_it_is(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked = "    net = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten())\n    net.lock = threading.Lock()\n"
    text = f"import threading\n{FACTORY}\ndef build():\n{locked}    return net, Preprocessing(16)\n"
    (tmp_path / "locked_nets.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert resolve("python:locked_nets:build", store, device="cpu").dimensions == 12


def test_a_users_module_is_found_in_the_current_folder_after_installed_ones(tmp_path: Path) -> None:
    factory = (
        "from torch import nn\nfrom wtl_core.encoders.preprocessing import Preprocessing\n"
        "class Late(nn.Flatten):\n"
        "    def forward(self, values):\n        import my_late\n        return super().forward(values)\n"
        "def build():\n    return nn.Sequential(nn.AdaptiveAvgPool2d(2), Late()), Preprocessing(16)\n"
    )
    (tmp_path / "my_late.py").write_text("")
    for name in ("my_nets", "timm"):
        (tmp_path / f"{name}.py").write_text(factory)
    code = (
        "import sys\nfrom wtl_core.encoders.resolve import resolve\nfrom wtl_core.workspace.storage import open_store\n"
        "import torch\n"
        "for _ in range(2): encoder = resolve('python:my_nets:build', open_store('w'), device='cpu')\n"
        "print(encoder.encode(torch.ones(2, 3, 16, 16, dtype=torch.uint8)).shape[1])\n"
        "import timm; print('create_model' in dir(timm), sys.path.count(sys.argv[1]))"
    )
    # -P as for the console script: the current folder is not on the path
    command = [sys.executable, "-P", "-c", code, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.stdout.split() == ["12", "True", "0"], done.stderr
