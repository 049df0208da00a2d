"""Loaded by a flow run's interpreter in tests alone: makes one function of `wtl_core` stand still for a kill to hit."""

import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self, module: str, function: str, plan: dict[str, str]) -> None:
        self.module, self.function, self.plan = module, function, plan

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != self.module:
            return None
        sys.meta_path.remove(self)
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        if spec is None:  # an editable install brings its own finder
            spec = importlib.util.find_spec(name)
        load = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            load(module)
            setattr(module, self.function, self.stalling(getattr(module, self.function)))

        spec.loader.exec_module = exec_module
        return spec

    def stalling(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def stalled(*args: Any, **kwargs: Any) -> Any:
            result = original(*args, **kwargs) if self.plan["when"] == "after" else None
            marker = Path(self.plan["marker"])
            marker.touch()
            deadline = time.monotonic() + 600
            while marker.exists() and time.monotonic() < deadline:
                time.sleep(0.1)
            return result if self.plan["when"] == "after" else original(*args, **kwargs)

        return stalled


if "WTL_TEST_STALL" in os.environ:
    _plan = json.loads(os.environ["WTL_TEST_STALL"])
    _module, _, _function = _plan["function"].partition(":")
    sys.meta_path.insert(0, _Finder(_module, _function, _plan))
