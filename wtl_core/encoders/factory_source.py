"""The source files behind a user's `python:` factory: found by what they import, without importing anything.

What is installed counts by its version and is left out, the factory's own module aside. Imports are followed because
digesting every `.py` beside the factory would embed the pool anew for each edit of an unrelated script there, and would
miss packages beside it. Imports no torch: a refresh is planned with it.
"""

import ast
import hashlib
import json
import sys
import sysconfig
from collections.abc import Iterator
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

_INSTALLED = ("site-packages", "dist-packages")
_STANDARD = sysconfig.get_path("stdlib")
_LIBRARIES = frozenset({"wtl_core", "torch", "torchvision", "timm", "numpy"})
"""Libraries that are never followed, wherever they are installed, since a checkout of theirs may be on the path."""


def source_files(module: str) -> list[Path]:
    """The module's file and those of the user's own modules that it imports, also from within functions; sorted.

    Empty if there is no such module. Compiled modules and names that are put together at run time are not followed.
    """
    found: dict[str, Path] = {}
    queue = list(_packages_and(module))
    while queue:
        name = queue.pop()
        spec = None if name in found else _find(name)
        if spec is None or spec.origin is None or not (_is_of(module, name) or _is_users(name, spec.origin)):
            continue
        path = found[name] = Path(spec.origin)
        if path.suffix == ".py":
            is_package = spec.submodule_search_locations is not None
            for other in _imported(path, name if is_package else name.rpartition(".")[0]):
                queue += _packages_and(other)
    return sorted(set(found.values()))


def digest(files: list[Path]) -> str:
    """SHA-256 hex over the files' bytes, of one file its own; order and the folders that they lie in do not count."""
    each = sorted((path.name, _digest_of(path)) for path in files)
    return each[0][1] if len(each) == 1 else hashlib.sha256(json.dumps(each).encode()).hexdigest()


def _digest_of(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _packages_and(name: str) -> Iterator[str]:
    """`a`, `a.b` and `a.b.c` of `a.b.c`: importing one runs the packages above it."""
    parts = name.split(".")
    return (".".join(parts[: end + 1]) for end in range(len(parts)))


def _find(name: str) -> ModuleSpec | None:
    """Where `load_factory` would find it: the current folder comes last."""
    places: list[str] = [*sys.path, str(Path.cwd())]
    spec = None
    for part in name.split("."):
        spec = PathFinder.find_spec(part, places)  # by its own name alone: the full one asks for imported packages
        if spec is None:
            return None
        places = list(spec.submodule_search_locations or [])
    return spec


def _is_of(module: str, name: str) -> bool:
    """Whether `name` is the factory's module or one of the packages above it."""
    return name == module or module.startswith(f"{name}.")


def _is_users(name: str, origin: str) -> bool:
    top = name.partition(".")[0]
    path = Path(origin)
    if top in _LIBRARIES or top in sys.stdlib_module_names or not path.is_file():
        return False
    return not any(part in _INSTALLED for part in path.parts) and not path.is_relative_to(_STANDARD)


def _imported(path: Path, package: str) -> Iterator[str]:
    """Full names of what a file's import statements can name; of `from a import b` both `a` and `a.b`."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):  # importing it will say so
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            if base:
                yield base
                yield from (f"{base}.{alias.name}" for alias in node.names if alias.name != "*")
