"""Writes the generated parts of README.md and of the pages in docs/ from the code. `make docs` runs it.

A part stands between `<!-- NAME: ... -->` and `<!-- end of NAME -->`; `PARTS` makes its text.
"""

import ast
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from flows.cli.main import cli
from flows.serving.site_values import Labelling
from tasks.settings import Settings
from wtl_core.labelling.batch_files import FORMATS
from wtl_core.recipe.base import is_expert
from wtl_core.recipe.recipe import Recipe
from wtl_core.recipe.selection import Balance, Quota, SimilarTo, WeightBy

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
DOCS = ROOT / "docs"
INDEX = DOCS / "README.md"
PAGES = (README, *sorted(DOCS.glob("*.md")))
_IN_EVERY_COMMAND = ("--json", "--verbose", "--debug", "--help")


def build(text: str, page: Path) -> str:
    """The text of a page with every generated part as the code has it now."""
    for name in re.findall(r"^<!-- (\w+): ", text, re.MULTILINE):
        pattern = rf"(<!-- {name}: [^\n]*-->\n).*?(<!-- end of {name} -->)"
        content = PARTS[name](page)
        text, count = re.subn(pattern, lambda m, c=content: f"{m[1]}{c}\n{m[2]}", text, flags=re.DOTALL)  # type: ignore[misc]
        assert count == 1, f"{page}: {name}"
    return text


def title_and_question(page: Path) -> tuple[str, str]:
    """What a page begins with."""
    title, _, question = page.read_text().split("\n", 3)[:3]
    return title.removeprefix("# "), question


def _pages(page: Path) -> str:
    """The pages of docs/ by their questions, with links from `page`."""
    rows = []
    for other in sorted(DOCS.glob("*.md"), key=_place):
        if other != INDEX:
            title, question = title_and_question(other)
            rows.append((question, f"[{title}]({other.relative_to(page.parent)})"))
    return _table(("question", "page"), rows)


_ORDER = (
    "report", "app", "labelling", "recipe", "sources", "encoders", "results", "performance", "concepts",
    "command_line",
    "workspace", "python", "operations", "ray", "troubleshooting", "architecture", "development", "log",
)  # fmt: skip
"""Pages as a new user meets them."""


def _place(page: Path) -> int:
    return _ORDER.index(page.stem) if page.stem in _ORDER else len(_ORDER)


def _parameters(page: Path) -> str:
    parts, for_experts = [], dict[str, FieldInfo]()
    for stage, field in Recipe.model_fields.items():
        model = field.annotation
        assert isinstance(model, type)
        assert issubclass(model, BaseModel)
        everyday = {name: field for name, field in model.model_fields.items() if not is_expert(field)}
        parts.append(f"**`[{stage}]`** {field.description}\n\n{_fields(everyday)}")
        for_experts |= {f"{stage}.{name}": field for name, field in model.model_fields.items() if is_expert(field)}
    parts.append(f"**For experts**, who have measured that another value serves them better.\n\n{_fields(for_experts)}")
    return "\n\n".join(parts)


def _labelling(page: Path) -> str:
    return _fields(dict(Labelling.model_fields))


def _steering(page: Path) -> str:
    parts: dict[str, type[BaseModel]] = {
        "quotas": Quota,
        "balance": Balance,
        "weights": WeightBy,
        "similar_to": SimilarTo,
    }
    return "\n\n".join(f"**`{name}`**\n\n{_fields(dict(model.model_fields))}" for name, model in parts.items())


def _fields(fields: dict[str, FieldInfo]) -> str:
    rows = []
    for name, field in fields.items():
        limits = [str(m) for m in field.metadata if type(m).__name__ in ("Ge", "Gt", "Le", "Lt")]
        shown = ", ".join(re.sub(r"(\w+)\((\w+)=(.*)\)", lambda m: f"{_SIGNS[m[2]]} {m[3]}", limit) for limit in limits)
        rows.append((f"`{name}`", _default(field), shown, field.description or ""))
    return _table(("field", "default", "range", "meaning"), rows)


_SIGNS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value: Any = field.get_default(call_default_factory=True)
    return "`none`" if value is None or value == () else f"`{value}`"


def _settings(page: Path) -> str:
    rows = [(f"`WTL_{name.upper()}`", field.description or "") for name, field in Settings.model_fields.items()]
    return _table(("variable", "meaning"), rows)


def _commands(page: Path) -> str:
    parts = []
    for name, command in commands_by_name().items():
        context = click.Context(command, info_name=name)
        usage = " ".join(command.collect_usage_pieces(context))
        options = [option.get_help_record(context) for option in command.get_params(context)]
        rows = [
            (" or ".join(f"`{form}`" for form in record[0].split(", ")), record[1])
            for record in options
            if record is not None and record[1] and not record[0].endswith(_IN_EVERY_COMMAND)
        ]
        text = "\n\n".join(" ".join(part.split()) for part in (command.help or "").split("\n\n"))
        table = f"\n\n{_table(('option', 'meaning'), rows)}" if rows else ""
        parts.append(f"### {name}\n`Usage: {name} {usage}`\n\n{text}{table}")
    return "\n\n".join(parts)


def commands_by_name() -> dict[str, click.Command]:
    """Every command that does something, by its whole name, such as `wtl labels add`."""

    def below(name: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
        if not isinstance(command, click.Group):
            yield name, command
            return
        for word, found in command.commands.items():  # in the order of the help
            yield from below(f"{name} {word}", found)

    return dict(below("wtl", cli))


def _reasons(page: Path) -> str:
    docs = attribute_docs("wtl_core/images/faults.py", "Reason")
    rows = [(f"`{_reason_of(name)}`", text) for name, text in docs.items()]
    return _table(("reason", "meaning"), rows)


def _reason_of(member: str) -> str:
    from wtl_core.images.faults import Reason

    return Reason[member].value


def _ladder(page: Path) -> str:
    docs = attribute_docs("wtl_core/selection/ladder.py", "Ladder")
    of_all = ("random_group_balance", "references", "is_held_out", "advice")  # in the receipt
    return _table(("column", "meaning"), [(f"`{name}`", text) for name, text in docs.items() if name not in of_all])


def _commit(page: Path) -> str:
    docs = attribute_docs("wtl_core/workspace/commits.py", "Commit")
    return _table(("key", "meaning"), [(f"`{name}`", text) for name, text in docs.items() if "unknown" not in name])


def _accounts(page: Path) -> str:
    file = "wtl_core/workspace/accounts.py"
    docs = attribute_docs(file, "PoolAccounts") | attribute_docs(file, "Accounts")
    return _table(("key", "meaning"), [(f"`{name}`", text) for name, text in docs.items()])


def attribute_docs(file: str, name: str) -> dict[str, str]:
    """What a class says of its attributes: below each, or in its docstring's section `Attributes`."""
    [found] = [node for node in ast.walk(ast.parse((ROOT / file).read_text())) if _is_class(node, name)]
    assert isinstance(found, ast.ClassDef)
    docs = {}
    for attribute, text in zip(found.body, found.body[1:], strict=False):
        target = attribute.target if isinstance(attribute, ast.AnnAssign) else getattr(attribute, "targets", [None])[0]
        if isinstance(target, ast.Name) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
            docs[target.id] = " ".join(str(text.value.value).split())
    section = (ast.get_docstring(found) or "").partition("Attributes:\n")[2]
    entries = re.findall(r"^    (\w+): (.*?)(?=^    \w+: |\Z)", section, re.MULTILINE | re.DOTALL)
    return docs | {attribute: " ".join(text.split()) for attribute, text in entries}


def _is_class(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.ClassDef) and node.name == name


def _formats(page: Path) -> str:
    rows = []
    for form in FORMATS.values():
        images = "named" if form.images is None else "copied or linked" if not form.ending else "copied"
        images = "named, with an address" if form.has_addresses else images
        file = f"`{form.ending}`" if form.ending else "a folder"
        rows.append((f"`{form.name}`", file, form.about, images, form.limits))
    return _table(("`--format`", "file", "what it is", "images are", "one file holds at most"), rows)


def _tree(page: Path) -> str:
    lines = []
    for package in ("flows", "tasks", "wtl", "wtl_core"):
        for folder in sorted({file.parent for file in (ROOT / package).rglob("*.py")}):
            files = sorted(file for file in folder.glob("*.py") if file.name != "__init__.py")
            if files:
                lines.append(f"{folder.relative_to(ROOT)}/")
                width = max(len(file.name) for file in files) + 2
                lines.extend(f"  {file.name:<{width}}{_summary(file)}" for file in files)
    return "```\n" + "\n".join(lines) + "\n```"


def _summary(file: Path) -> str:
    """The module docstring's first sentence; one that is too long for a line is cut."""
    text = (ast.get_docstring(ast.parse(file.read_text())) or "").partition("\n\n")[0].replace("\n", " ")
    first = re.split(r"(?<=[a-z0-9`)])[.] (?=[A-Z])", text)[0].rstrip(".")
    return first if len(first) <= 120 else first[:117].rsplit(" ", 1)[0] + " ..."


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *(tuple(map(_cell, row)) for row in rows)]
    return "\n".join("|---" * len(head) + "|" if line[0] == "---" else f"| {' | '.join(line)} |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


PARTS: dict[str, Callable[[Path], str]] = {
    "pages": _pages,
    "parameters": _parameters,
    "steering": _steering,
    "labelling": _labelling,
    "settings": _settings,
    "commands": _commands,
    "reasons": _reasons,
    "ladder": _ladder,
    "commit": _commit,
    "accounts": _accounts,
    "formats": _formats,
    "tree": _tree,
}


def write() -> None:
    """Write every page anew."""
    for page in PAGES:
        page.write_text(build(page.read_text(), page))


if __name__ == "__main__":
    write()
