"""What the README says of the code is true: tables and tree are as generated, commands exist, links lead somewhere."""

import re

from flows.cli.main import cli
from tests.readme import README, ROOT, build

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
    from wtl_core.recipe.recipe import parse_recipe

    [example] = re.findall(r"```toml\n(.*?)```", TEXT, flags=re.DOTALL)
    assert parse_recipe(example, name="README.md").ingest.filters == (
        "sharpness > 10",
        "metadata.score >= 0.5",
    )
