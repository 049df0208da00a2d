"""What README.md and the pages in docs/ say of the code is true, and their links lead somewhere."""

import ast
import re
import shlex
import tomllib
from pathlib import Path

import click
import numpy as np
import polars as pl
import pytest

from flows.cli.main import cli
from flows.serving.site_values import Site
from tests.docs import DOCS, INDEX, PAGES, README, ROOT, attribute_docs, build, commands_by_name, title_and_question
from tests.docs_commands import blocks, commands, mentions
from tests.docs_first_run import MOST_BYTES, PICTURE
from wtl_core import errors
from wtl_core.errors import WtlError
from wtl_core.images.faults import TRANSIENT, Reason
from wtl_core.labelling import cut
from wtl_core.pool import part_file
from wtl_core.recipe.recipe import Recipe, parse_recipe
from wtl_core.shards import discover

OTHERS = (ROOT / "CONTRIBUTING.md", *sorted((ROOT / "deployments").rglob("README.md")))
ALL = (*PAGES, *OTHERS)


def by_name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=by_name)
def test_generated_parts_are_up_to_date(page: Path) -> None:
    text = page.read_text()
    assert build(text, page) == text, "run: make docs"


def test_the_front_page_is_short_and_leads_to_every_page() -> None:
    text = README.read_text()
    assert len(text.splitlines()) <= 150
    for page in PAGES[1:]:
        if page != INDEX:
            assert f"](docs/{page.name})" in text
            assert title_and_question(page)[1].endswith("?"), f"{page.name} begins with the question that it answers"


@pytest.mark.parametrize("page", ALL, ids=by_name)
def test_links_lead_to_files_and_headings(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    links = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'src="([^"]+)"', text)
    for link in links:
        if link.startswith(("https://", "http://")):
            continue
        path, _, anchor = link.partition("#")
        target = page if not path else (page.parent / path).resolve()
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), f"{link}: the headings there are {sorted(anchors(target))}"


def anchors(page: Path) -> set[str]:
    """The names of a page's headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", ALL, ids=by_name)
def test_every_command_shown_is_one_that_the_program_takes(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WTL_WORKSPACE", "workspace")
    for words in commands(page):
        parse(words)
    for mention in mentions(page):
        try:
            parse(shlex.split(mention)[1:])
        except click.MissingParameter:  # running text names a command without all that it needs
            continue


def parse(words: list[str]) -> None:
    """Let click read the words; nothing is run."""
    command: click.Command = cli
    context = click.Context(cli, info_name="wtl")
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        name, found, words = command.resolve_command(context, words)
        assert found is not None, name
        command = found
    if not isinstance(command, click.Group):
        command.make_context(command.name, list(words), parent=context)


def test_the_pages_of_commands_and_front_page_show_commands() -> None:
    assert 8 <= len(commands(README)) <= 12
    assert sum(len(commands(page)) for page in PAGES) >= 30
    assert len(commands_by_name()) >= len(cli.commands)


@pytest.mark.parametrize("page", ALL, ids=by_name)
def test_every_make_target_shown_exists(page: Path) -> None:
    makefile = (ROOT / "Makefile").read_text()
    shown = re.findall(r"(?:`|^)make ([a-z-]+)", page.read_text(), flags=re.MULTILINE)
    for target in shown:
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


@pytest.mark.parametrize("page", PAGES, ids=by_name)
def test_every_recipe_and_site_shown_is_valid(page: Path) -> None:
    for example in blocks(page, "toml"):
        if "workspace =" in example:
            Site.model_validate(tomllib.loads(example))
        else:
            parse_recipe(example, name=page.name)


def test_every_parameter_is_in_one_table_and_the_newcomers_have_no_expert_knobs() -> None:
    text = (DOCS / "recipe.md").read_text()
    [tables] = re.findall(r"<!-- parameters: .*?<!-- end of parameters -->", text, flags=re.DOTALL)
    everyday, experts = tables.split("**For experts**")
    for stage, section in Recipe.model_fields.items():
        assert isinstance(section.annotation, type)
        [own] = re.findall(rf"\*\*`\[{stage}\]`\*\*(.*?)(?=\n\*\*|$)", everyday, flags=re.DOTALL)
        shown = re.findall(r"^\| `(\w+)` \|", own, flags=re.MULTILINE)
        hidden = re.findall(rf"^\| `{stage}\.(\w+)` \|", experts, flags=re.MULTILINE)
        assert sorted(shown + hidden) == sorted(section.annotation.model_fields)
    knobs = ("head", "exact_up_to", "cells_from", "neighbours", "clusters")
    assert all(f"| `selection.{name}` |" in experts for name in knobs)
    assert "| `budget` |" in everyday


def test_a_recipe_file_sets_expert_knobs_where_it_always_did() -> None:
    assert parse_recipe("[selection]\nhead = 100", name="r.toml").selection.head == 100


def columns_told(heading: str) -> list[str]:
    """The columns in the tables below a heading of the page about the workspace."""
    text = (DOCS / "workspace.md").read_text()
    [part] = re.findall(rf"^## {heading}\n(.*?)(?=^## |\Z)", text, flags=re.MULTILINE | re.DOTALL)
    cells = re.findall(r"^\| (`.*?`) \|", part, flags=re.MULTILINE)
    return [name for cell in cells for name in re.findall(r"`(\w+)`", cell)]


def test_every_column_of_the_workspace_is_explained() -> None:
    assert sorted(columns_told("Pool")) == sorted(part_file.POOL_SCHEMA.names)
    assert sorted(columns_told("Quarantine")) == sorted(part_file.QUARANTINE_SCHEMA.names)
    assert sorted(columns_told("Ignored")) == sorted(part_file.IGNORED_SCHEMA.names)
    assert sorted(columns_told("Listings")) == sorted(discover.SNAPSHOT_SCHEMA)
    assert sorted(columns_told("Ranking")) == sorted({*cut.COLUMNS, "replaced_by"})


def test_attributes_are_read_from_both_forms_of_docstring() -> None:
    assert set(attribute_docs("wtl_core/images/faults.py", "Reason")) == {reason.name for reason in Reason}
    ladder = attribute_docs("wtl_core/selection/ladder.py", "Ladder")
    assert ladder["percent"] == "1 to 100."
    assert len(ladder) == 20


def test_the_reasons_that_may_pass_are_the_last_four_of_the_table() -> None:
    text = (DOCS / "sources.md").read_text()
    shown = re.findall(r"^\| `(\w+)` \| [A-Z]", text, flags=re.MULTILINE)
    assert shown == [reason.value for reason in Reason]
    assert set(shown[-4:]) == {reason.value for reason in TRANSIENT}
    assert "last four reasons" in text


def test_every_exit_code_is_explained() -> None:
    text = (DOCS / "troubleshooting.md").read_text()
    [table] = re.findall(r"^## Exit codes\n(.*?)(?=^## )", text, flags=re.MULTILINE | re.DOTALL)
    told = {int(code) for cell in re.findall(r"^\| ([\d, ]+) \|", table, re.MULTILINE) for code in cell.split(",")}
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, WtlError)]
    assert told == {0, *(kind.exit_code for kind in kinds), 128 + 1, 128 + 2, 128 + 15}


def test_every_message_shown_is_one_that_the_program_gives() -> None:
    """What stands between the gaps (`...`) of a message is in the texts of the code."""
    text = (DOCS / "troubleshooting.md").read_text()
    first = re.findall(r"^\| (`.*?) \| [1-4]", text, flags=re.MULTILINE)
    pieces = [piece.strip() for cell in first for told in re.findall(r"`([^`]+)`", cell) for piece in told.split("...")]
    assert len(pieces) > 60
    given = " ".join(" ".join(code_texts()).split())
    missing = [piece for piece in pieces if piece and piece not in given]
    assert missing == []


def code_trees() -> list[ast.Module]:
    files = [file for package in ("flows", "tasks", "wtl_core") for file in sorted((ROOT / package).rglob("*.py"))]
    return [ast.parse(file.read_text()) for file in files]


def code_texts() -> list[str]:
    """Every text in the code; where an f-string shows a value, there is a space."""
    return [text for tree in code_trees() for node in ast.walk(tree) if (text := text_of(node))]


def text_of(node: ast.AST) -> str:
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else " " for part in node.values)
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def test_messages_have_the_exit_codes_shown() -> None:
    """Of those that are written where they are raised."""
    codes = {name: kind.exit_code for name, kind in vars(errors).items() if isinstance(kind, type)}  # type: ignore[attr-defined]
    raised = [
        (codes[node.exc.func.id], " ".join(text_of(node.exc.args[0]).split()))
        for tree in code_trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and isinstance(node.exc.func, ast.Name)
        if node.exc.func.id in codes and node.exc.args
    ]
    checked = 0
    text = (DOCS / "troubleshooting.md").read_text()
    for cell, shown in re.findall(r"^\| (`.*?) \| ([1-4](?: or [1-4])*) \|", text, flags=re.MULTILINE):
        for told in re.findall(r"`([^`]+)`", cell):
            pieces = [piece.strip() for piece in told.split("...")]
            given = {code for code, message in raised if all(piece in message for piece in pieces)}
            assert not given or given & set(map(int, shown.split(" or "))), (told, given)
            checked += bool(given)
    assert checked > 40


def test_every_folder_of_the_code_is_on_the_front_page() -> None:
    text = README.read_text()
    for package in ("flows", "tasks", "wtl_core"):
        assert f"\n{package}/ " in text
        for folder in (ROOT / package).iterdir():
            if any(folder.glob("*.py")):
                assert f"{folder.name}/" in text, folder


def test_the_output_of_a_first_run_has_the_fields_that_the_program_prints() -> None:
    [shown] = re.findall(r"<!-- output, .*?-->\n```\n(.*?)```\n<!-- end of output -->", README.read_text(), re.DOTALL)
    assert 8 <= len(shown.splitlines()) <= 16
    printed = (ROOT / "flows" / "cli" / "terminal.py").read_text()
    fields = re.findall(r"^(\w+) {2,}\S", shown, flags=re.MULTILINE)
    assert len(fields) > 4
    assert [field for field in fields if f'"{field}' not in printed] == [], "make pictures"


def test_the_picture_of_the_report_is_small() -> None:
    assert 10_000 < PICTURE.stat().st_size <= MOST_BYTES


def test_figures_are_drawn_again_as_they_stand(tmp_path: Path) -> None:
    """Their numbers, to a pixel: another matplotlib may write the same lines in another form."""
    from tests import docs_figures  # here: it imports matplotlib and torch

    docs_figures.write(tmp_path)
    drawn = sorted(path.name for path in tmp_path.iterdir())
    assert drawn == sorted(path.name for path in docs_figures.FOLDER.iterdir())
    for name in drawn:
        now, then = (numbers((folder / name).read_text()) for folder in (tmp_path, docs_figures.FOLDER))
        assert now.shape == then.shape, f"{name}: make pictures"
        assert np.abs(now - then).max() < 1, f"{name}: make pictures"


def numbers(svg: str) -> np.ndarray:
    """The coordinates of all paths and markers."""
    values = re.findall(r'(?<=[ "ML])-?\d+\.\d+', svg)
    return pl.Series(values).cast(pl.Float64).to_numpy()
