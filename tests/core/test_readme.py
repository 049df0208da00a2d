"""What the README says of the code is true: tables and tree are as generated, commands exist, links lead somewhere."""

import re

from flows.cli.main import cli
from tests.readme import README, ROOT, build
from wtl_core.recipe.recipe import Recipe, parse_recipe

TEXT = README.read_text()


def test_generated_parts_are_up_to_date() -> None:
    assert build(TEXT) == TEXT, "run: make docs"


def test_every_command_shown_exists() -> None:
    shown = set(re.findall(r"^wtl ([a-z-]+)", TEXT, flags=re.MULTILINE)) | set(re.findall(r"`wtl ([a-z-]+)", TEXT))
    assert shown
    assert shown <= set(cli.commands)


def test_every_make_target_shown_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"`?make ([a-z-]+)", TEXT)) - {"python", "it"}:
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


def test_links_lead_to_files() -> None:
    for link in re.findall(r"\]\((?!http)([^)#]+)\)", TEXT):
        assert (ROOT / link).exists(), link


def test_the_recipe_shown_is_valid() -> None:
    [example] = re.findall(r"```toml\n(.*?)```", TEXT, flags=re.DOTALL)
    assert parse_recipe(example, name="README.md").ingest.filters == (
        "sharpness > 10",
        "metadata.score >= 0.5",
    )


def test_every_parameter_is_in_one_table_and_the_newcomers_have_no_expert_knobs() -> None:
    [tables] = re.findall(r"<!-- parameters: .*?<!-- end of parameters -->", TEXT, flags=re.DOTALL)
    everyday, experts = tables.split("**For experts**")
    for stage, section in Recipe.model_fields.items():
        assert isinstance(section.annotation, type)
        [own] = re.findall(rf"\*\*`\[{stage}\]`\*\*(.*?)(?=\n\*\*|$)", everyday, flags=re.DOTALL)
        shown = re.findall(r"^\| `(\w+)` \|", own, flags=re.MULTILINE)
        hidden = re.findall(rf"^\| `{stage}\.(\w+)` \|", experts, flags=re.MULTILINE)
        assert sorted(shown + hidden) == sorted(section.annotation.model_fields)
    knobs = ("head", "exact_up_to", "cells_from", "neighbours", "tail_from", "outliers_from", "clusters")
    assert all(f"| `selection.{name}` |" in experts for name in knobs)
    assert "| `budget` |" in everyday


def test_a_recipe_file_sets_expert_knobs_where_it_always_did() -> None:
    assert parse_recipe("[selection]\nhead = 100\ntail_from = 0.5", name="r.toml").selection.head == 100
