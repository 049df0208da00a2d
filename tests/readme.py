"""Writes the generated parts of README.md: parameter and settings tables, file tree. `make docs` runs it."""

import ast
import re
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from tasks.settings import Settings
from wtl_core.recipe.base import is_expert
from wtl_core.recipe.recipe import Recipe

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"


def build(text: str) -> str:
    """`text` with every generated part as the code has it now."""
    for name, content in (("parameters", _parameters()), ("settings", _settings()), ("tree", _tree())):
        pattern = rf"(<!-- {name}: [^\n]*-->\n).*?(<!-- end of {name} -->)"
        text, count = re.subn(pattern, lambda m, c=content: f"{m[1]}{c}\n{m[2]}", text, flags=re.DOTALL)  # type: ignore[misc]
        assert count == 1, name
    return text


def _parameters() -> str:
    parts, for_experts = [], dict[str, FieldInfo]()
    for stage, field in Recipe.model_fields.items():
        model = field.annotation
        assert model is not None
        assert issubclass(model, BaseModel)
        everyday = {name: field for name, field in model.model_fields.items() if not is_expert(field)}
        parts.append(f"**`[{stage}]`** {field.description}\n\n{_table(everyday)}")
        for_experts |= {f"{stage}.{name}": field for name, field in model.model_fields.items() if is_expert(field)}
    parts.append(f"**For experts**, who have measured that another value serves them better.\n\n{_table(for_experts)}")
    return "\n\n".join(parts)


def _settings() -> str:
    rows = [f"| `WTL_{name.upper()}` | {_cell(field.description)} |" for name, field in Settings.model_fields.items()]
    return "\n".join(["| variable | meaning |", "|---|---|", *rows])


def _table(fields: dict[str, FieldInfo]) -> str:
    rows = []
    for name, field in fields.items():
        default = field.get_default(call_default_factory=True)  # type: ignore[call-arg]
        limits = [str(m) for m in field.metadata if type(m).__name__ in ("Ge", "Gt", "Le", "Lt")]
        shown = ", ".join(re.sub(r"(\w+)\((\w+)=(.*)\)", lambda m: f"{_SIGNS[m[2]]} {m[3]}", limit) for limit in limits)
        rows.append(f"| `{name}` | `{_default(default)}` | {shown} | {_cell(field.description)} |")
    return "\n".join(["| field | default | range | meaning |", "|---|---|---|---|", *rows])


_SIGNS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}


def _default(value: Any) -> str:
    return "none" if value is None or value == () else str(value)


def _cell(text: str | None) -> str:
    return " ".join((text or "").split()).replace("|", "\\|")


def _tree() -> str:
    lines = []
    for package in ("flows", "tasks", "wtl_core"):
        for folder in sorted({file.parent for file in (ROOT / package).rglob("*.py")}):
            files = sorted(file for file in folder.glob("*.py") if file.name != "__init__.py")
            lines.append(f"{folder.relative_to(ROOT)}/")
            width = max(len(file.name) for file in files) + 2
            lines.extend(f"  {file.name:<{width}}{_summary(file)}" for file in files)
    lines.append("deployments/           prefect.yaml, container files, units: data only")
    lines.append("docs/                  log.md: what was tried and did not win")
    lines.append("tests/                 core/, tasks/, flows/, services/, browser/; bench/ and its reports")
    return "```\n" + "\n".join(lines) + "\n```"


def _summary(file: Path) -> str:
    """The module docstring's first sentence; one that is too long for a line is cut."""
    text = (ast.get_docstring(ast.parse(file.read_text())) or "").partition("\n\n")[0].replace("\n", " ")
    first = re.split(r"(?<=[a-z0-9`)])[.] (?=[A-Z])", text)[0].rstrip(".")
    return first if len(first) <= 120 else first[:117].rsplit(" ", 1)[0] + " ..."


if __name__ == "__main__":
    README.write_text(build(README.read_text()))
