"""What a stage shows comes after its work, and never costs it."""

import httpx
import pytest

from tasks import artifacts
from wtl_core.commits import Commit
from wtl_core.recipe import Recipe
from wtl_core.storage import Store


def test_a_server_in_trouble_costs_the_picture_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(**_: object) -> None:
        request = httpx.Request("POST", "http://127.0.0.1/artifacts")
        raise httpx.HTTPStatusError("500 Server Error", request=request, response=httpx.Response(500, request=request))

    monkeypatch.setattr(artifacts, "create_table_artifact", refuse)
    record = Commit(
        number=1, created="", sources=[], listing="", recipe=Recipe(), encoder="", encoder_name="pixels",
        vector_table_version=1, ledger_length=0, selection="", report="", counts={"samples": 3}, budget=None,
        coverage={}, random_coverage={}, seconds={},
    )  # fmt: skip
    artifacts.publish_stages(Store("/nowhere"), record)
    assert "publish_stages: the server shows less of this run: 500 Server Error" in caplog.text
