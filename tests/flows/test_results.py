"""`wtl cut`, `wtl report` and `wtl status` on the command line, beside what `test_cli` shows of them."""

import json
import subprocess
import sys
import threading
import urllib.request
import webbrowser
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from flows.serving.report_server import ReportServer
from tests.conftest import S3_KEYS, build_source, result_of
from tests.flows.conftest import Wtl
from tests.plain_refresh import refresh
from wtl_core.workspace.storage import Store


def test_an_ending_that_says_no_form_is_refused_before_any_work(wtl_here: Wtl, tmp_path: Path) -> None:
    done = wtl_here("cut", "-w", tmp_path / "none", "--at", "5%", "-o", tmp_path / "picks.doc")
    assert done.returncode == 2
    assert done.stderr.startswith(f"wtl: {tmp_path}/picks.doc: expected an ending out of .csv, .tsv, .json")
    assert done.stderr.count("\n") == 1


def test_picks_reach_the_file_and_the_json_names_it(wtl_here: Wtl, source: Path, tmp_path: Path) -> None:
    refresh(tmp_path / "w", source)
    done = wtl_here("cut", "-w", tmp_path / "w", "--at", "1", "-o", tmp_path / "picks.parquet", "--json")
    result = result_of(done)
    decision = result.pop("decision")
    assert result == {"picks": 1, "left_out": 0, "output": str(tmp_path / "picks.parquet")}
    assert decision["labels"] == 1
    assert done.stderr == f"{decision['sentence']}\n1 pick in {tmp_path}/picks.parquet\n"
    assert (tmp_path / "picks.parquet").read_bytes()[:4] == b"PAR1"
    [pick] = result_of(wtl_here("cut", "-w", tmp_path / "w", "--at", "1", "--json"))["picks"]
    assert pick["pool_coverage"] == pick["coverage"], "the ranking's own figure, by its own name and by the column's"


@pytest.mark.parametrize("is_shown", [True, False])
def test_a_report_is_opened_or_it_is_said_that_no_browser_is_here(
    wtl_here: Wtl, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_shown: bool
) -> None:
    report = str(tmp_path / "w" / refresh(tmp_path / "w", source).report)
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda address: opened.append(address) or is_shown)
    done = wtl_here("report", "-w", tmp_path / "w", "--open")
    assert (done.returncode, done.stdout, opened) == (0, f"{report}\n", [Path(report).as_uri()])
    assert done.stderr == (
        "" if is_shown else f"no browser can be opened here: copy {report} to a machine that has one\n"
    )


def test_a_report_in_a_bucket_is_opened_as_a_copy(
    wtl_here: Wtl, endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = Store(str(tmp_path / "w"))
    last = refresh(tmp_path / "w", build_source(tmp_path / "source", count=9))
    for key in ("wtl.json", "refreshes/000001.json", last.report):
        Store("s3://team/w").write_bytes(key, local.read_bytes(key))
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda address: opened.append(address) or True)
    done = wtl_here("report", "-w", "s3://team/w", "--open", env={**S3_KEYS, "WTL_S3_ENDPOINT_URL": endpoint})
    assert (done.returncode, done.stdout) == (0, "s3://team/w/reports/000001.html\n"), done.stderr
    [address] = opened
    copy = Path(unquote(urlsplit(address).path))
    assert copy.read_bytes() == local.read_bytes(last.report)
    copy.unlink()
    copy.parent.rmdir()


@pytest.fixture
def served(source: Path, tmp_path: Path) -> Iterator[tuple[ReportServer, Path]]:
    last = refresh(tmp_path / "w", source)
    with ReportServer(Store(str(tmp_path / "w")), "127.0.0.1", 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server, tmp_path / "w" / last.report
        server.shutdown()


def asked(server: ReportServer, path: str, host: str | None = None) -> tuple[int, bytes]:
    connection = HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    connection.putrequest("GET", path, skip_host=True)
    connection.putheader("Host", host or f"127.0.0.1:{server.server_port}")
    connection.endheaders()
    answer = connection.getresponse()
    found = answer.status, answer.read()
    connection.close()
    return found


def test_reports_are_served_and_nothing_else_of_the_workspace(served: tuple[ReportServer, Path]) -> None:
    server, report = served
    for path in ("/", "/reports/000001.html", "/?x=1"):
        assert asked(server, path) == (200, report.read_bytes())
    for path in ("/reports/000002.html", "/wtl.json", "/reports/../wtl.json", "/reports/%2e%2e/wtl.json", "/x"):
        assert asked(server, path)[0] == 404


def test_a_page_elsewhere_cannot_read_reports_by_a_name_that_leads_here(served: tuple[ReportServer, Path]) -> None:
    server, report = served
    assert asked(server, "/", f"localhost:{server.server_port}") == (200, report.read_bytes())
    for name in ("evil.example", "127.0.0.1.evil.example:80", "evil.example:127", "[::1", ""):
        assert asked(server, "/", name or " ")[0] in (400, 421), name


def test_the_command_serves_and_says_where(wtl_here: Wtl, source: Path, tmp_path: Path) -> None:
    report = tmp_path / "w" / refresh(tmp_path / "w", source).report
    program = [sys.executable, "-m", "flows.cli.main", "report", "-w", str(tmp_path / "w"), "--serve", "--port", "0"]
    with subprocess.Popen([*program, "--json"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        address = json.loads(process.stdout.readline())["report"]
        with urllib.request.urlopen(address, timeout=20) as answer:
            assert answer.read() == report.read_bytes()
        process.terminate()
        assert process.wait(20) == 143
    with ReportServer(Store(str(tmp_path / "w")), "127.0.0.1", 0) as other:
        done = wtl_here("report", "-w", tmp_path / "w", "--serve", "--port", other.server_port)
    assert done.returncode == 2
    assert "expected an address that is free" in done.stderr
