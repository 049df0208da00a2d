"""What a stage shows comes after its work, and never costs it."""

from types import SimpleNamespace

import httpx
import pytest

from tasks.prefect_side import artifacts
from wtl_core.embedding.chunks import Embedded
from wtl_core.encoders.encoder_ref import EncoderRef
from wtl_core.recipe.recipe import Recipe
from wtl_core.workspace.accounts import Accounts
from wtl_core.workspace.commits import Commit
from wtl_core.workspace.storage import Store


def a_commit(*, report: str = "", selection: str = "") -> Commit:
    accounts = Accounts(**dict.fromkeys(Accounts.model_fields, 3))
    return Commit(
        number=1, created="", sources=[], listing="", recipe=Recipe(), encoder="", encoder_name="pixels",
        vector_table_version=1, ledger_length=0, selection=selection, report=report, counts=accounts, budget=None,
        coverage={}, random_coverage={}, seconds={},
    )  # fmt: skip


@pytest.mark.parametrize(("images", "seconds", "rate"), [(4000, 2.5, "1,600"), (0, 0.0, "no new image")])
def test_vectors_come_with_how_fast_they_were_made(
    monkeypatch: pytest.MonkeyPatch, images: int, seconds: float, rate: str
) -> None:
    shown: list[str] = []
    for name in ("materialised", "emit_completed"):
        monkeypatch.setattr(artifacts, name, lambda *_: None)
    monkeypatch.setattr(artifacts, "create_markdown_artifact", lambda markdown, **_: shown.append(markdown))
    run = SimpleNamespace(store=Store("/nowhere"))
    embedded = Embedded(1, 5000, 0, 0, images=images, seconds=seconds)
    artifacts.publish_vectors(run, EncoderRef("a" * 64, "pixels", "pixels", 8, None), embedded)  # type: ignore[arg-type]
    assert f"| images embedded now | {images:,} |\n| seconds | {seconds} |\n| images a second | {rate} |" in shown[0]


def test_a_server_in_trouble_costs_the_picture_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(**_: object) -> None:
        request = httpx.Request("POST", "http://127.0.0.1/artifacts")
        raise httpx.HTTPStatusError("500 Server Error", request=request, response=httpx.Response(500, request=request))

    monkeypatch.setattr(artifacts, "create_table_artifact", refuse)
    artifacts.publish_stages(Store("/nowhere"), a_commit())
    assert "publish_stages: the server shows less of this run: 500 Server Error" in caplog.text


@pytest.mark.parametrize(
    ("address", "way"),
    [
        (None, "`wtl report -w /w &lt;a&gt; --open` opens it: /w &lt;a&gt;/reports/000001.html"),
        ("http://night:15480/", "[Open the report](http://night:15480/reports/000001.html)"),
    ],
)
def test_the_report_comes_with_its_picture_and_a_way_to_it(
    monkeypatch: pytest.MonkeyPatch, address: str | None, way: str
) -> None:
    shown: list[str] = []
    monkeypatch.setattr(
        artifacts, "create_markdown_artifact", lambda markdown, description, **_: shown.extend([description, markdown])
    )
    record = a_commit(report="reports/000001.html", selection="selections/gone")
    artifacts.publish_report(Store("/w <a>"), record, b"\xff\xd8", address)
    said, text = shown
    assert said.startswith("The ranking was deleted")
    assert text.startswith("![The first picks, and what arrived](data:image/jpeg;base64,/9g=)")
    assert text.endswith(f"Report of refresh 1. {way}")
