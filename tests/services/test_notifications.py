"""A failed run reaches a person through a notification block of the user's choice: here a webhook that listens."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from service_stack import Stack, until

from tests.conftest import build_source

pytestmark = [pytest.mark.services, pytest.mark.timeout(600)]

BLOCK = (
    "import sys\nfrom prefect.blocks.notifications import CustomWebhookNotificationBlock\n"
    "block = CustomWebhookNotificationBlock(name='on-call', url=sys.argv[1],\n"
    "    json_data={'subject': '{{subject}}', 'body': '{{body}}'})\n"
    "block.save('on-call', overwrite=True)\n"
)


@pytest.fixture
def heard() -> Iterator[tuple[str, list[dict[str, str]]]]:
    """The address of a webhook, and what it was told."""
    told: list[dict[str, str]] = []

    class Webhook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Not on stderr."""

    server = HTTPServer(("127.0.0.1", 0), Webhook)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/", told
    server.shutdown()
    server.server_close()


def test_failures_crashes_and_an_exceeded_quarantine_budget_are_told(
    stack: Stack, heard: tuple[str, list[dict[str, str]]], tmp_path: Path
) -> None:
    address, told = heard
    site = stack.site.read_text()
    stack.site.write_text('notification_block = "custom-webhook/on-call"\n' + site)
    refused = stack.wtl("deploy", "--site", stack.site, check=False)
    assert refused.returncode == 2
    assert "the server has no such block" in refused.stderr
    subprocess.run([sys.executable, "-c", BLOCK, address], check=True, env=stack.environment, timeout=120)
    source = build_source(tmp_path / "source", count=9)
    for number in range(30):
        (source / f"broken-{number}.jpg").write_bytes(b"\xff\xd8\xff broken")
    recipe = {"encoder": {"name": "pixels"}, "ingest": {"quarantine_budget": 0.1}}
    try:
        stack.wtl("deploy", "--site", stack.site)
        run_id = stack.start_run("refresh", workspace=str(tmp_path / "w"), sources=[str(source)], recipe=recipe)
        assert stack.wait(run_id)["state"]["type"] == "FAILED"
        until(lambda: len(told) >= 2, seconds=180, what=f"both automations have told: {told}")
        stack.call_crashed(stack.start_run("maintain"))
        until(lambda: len(told) >= 3, seconds=180, what=f"the crash is told: {told}")
    finally:
        stack.site.write_text(site)
        stack.wtl("deploy", "--site", stack.site)
    subjects = " / ".join(sorted(message["subject"] for message in told))
    assert "failed" in subjects
    assert "too many broken images" in subjects
    assert "wtl: a run of maintain-test crashed" in subjects
    assert sum("quarantined" in message["body"] for message in told) == 2, told
