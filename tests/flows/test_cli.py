"""`wtl` as a stranger types it: processes, exit codes, stdout and stderr."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
from click.testing import CliRunner
from service_stack import STALL, free_port, until

from flows.cli.main import cli
from flows.serving import up
from flows.serving.processes import descendants, is_alive
from tests.conftest import make_jpeg, result_of
from tests.flows.conftest import Wtl
from tests.plain_refresh import ranking, refresh
from tests.small_encoders import timm_weights
from wtl_core.recipe.recipe import Recipe
from wtl_core.workspace import ledger
from wtl_core.workspace.storage import Store


def test_a_refresh_from_the_command_line_end_to_end(
    wtl: Wtl, wtl_alone: Wtl, wtl_here: Wtl, source: Path, tmp_path: Path
) -> None:
    """Its first command as a process with a server of its own is in `test_wheel.py`."""
    work = tmp_path / "w"
    first = result_of(wtl("run", source, "-w", work, "--encoder", "pixels", "--budget", "25%", "--json"))
    assert (first["samples"], first["picks"], first["budget"]) == (64, 16, "25%")
    assert first["coverage"]["100"] == pytest.approx(first["random_coverage"]["100"], abs=1e-6)
    assert Path(first["report"]).is_file()
    again = wtl_alone("run", "-w", work)
    assert again.returncode == 0, again.stderr
    created = json.loads((work / "refreshes" / "000001.json").read_text())["created"]
    unchanged, *rest = again.stdout.splitlines()
    assert unchanged == f"unchanged    nothing new since {created}; refresh 1 of {work} stands"
    assert rest[0] == first["decision"]["sentence"]
    assert [line.split()[0] for line in rest[1:]] == ["next"]
    status = result_of(wtl_alone("status", "-w", work, "--json"))
    assert status["decision"] == first["decision"]
    assert first["decision"]["sentence"] in Path(first["report"]).read_text()
    assert (status["refresh"], status["writer"]) == (1, None)
    cut = wtl_alone("cut", "-w", work, "--at", "10%")
    assert len(cut.stdout.splitlines()) == 1 + 6
    (tmp_path / "done.csv").write_text(cut.stdout)
    assert result_of(wtl_here("labels", "add", tmp_path / "done.csv", "-w", work, "--json"))["added"] == 6
    rest = wtl_here("cut", "-w", work, "--at", "6")
    assert "6 images are left out" in rest.stderr
    assert not set(rest.stdout.splitlines()[1:]) & set(cut.stdout.splitlines())
    assert result_of(wtl_here("cut", "-w", work, "--at", "6", "--json"))["left_out"] == 6
    assert wtl_here("report", "-w", work).stdout.strip() == first["report"]
    similar = wtl_here("similar", status["encoder"]["fingerprint"], "-w", work)
    assert similar.returncode == 2
    assert "expected the beginning of one sample's id" in similar.stderr


def test_a_pool_that_is_labelled_to_the_end_ends_every_command_well(
    wtl: Wtl, wtl_here: Wtl, source: Path, tmp_path: Path
) -> None:
    work = tmp_path / "w"
    refresh(work, source)
    ledger.append(Store(str(work)), "labelled", ranking(work)["sample_id"].to_list())
    for is_new in (True, False):  # the refresh itself, and the next run that has nothing to do
        done = wtl("run", "-w", work)
        assert done.returncode == 0, done.stderr
        assert ("ranking      0 ranked, 0 picked" in done.stdout) == is_new
        assert ("unchanged    nothing new since" in done.stdout) != is_new
        assert ("seconds" in done.stdout) == is_new
        assert "stop         nothing left to label" in done.stdout
        assert "next         No image is left to label: 64 are labelled." in done.stdout
    assert result_of(wtl("run", "-w", work, "--json"))["coverage"] == {}
    status = wtl_here("status", "-w", work)
    assert status.returncode == 0, status.stderr
    assert "nothing left to label" in status.stdout
    assert result_of(wtl_here("status", "-w", work, "--json"))["coverage"] == {}
    for point in ("500", "5%"):
        cut = wtl_here("cut", "-w", work, "--at", point)
        assert (cut.returncode, len(cut.stdout.splitlines())) == (0, 1), cut.stderr
        assert "nothing is left to label" in cut.stderr
    assert "nothing left to label" in Path(wtl_here("report", "-w", work).stdout.strip()).read_text()


def test_wrong_use_is_one_message_and_exit_code_two_or_three(wtl_here: Wtl, source: Path, tmp_path: Path) -> None:
    (tmp_path / "file.txt").write_text("x")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thing").write_text("x")
    (tmp_path / "empty").mkdir()
    (tmp_path / "r.toml").write_text("[selection]\nsed = 1\n")
    new = tmp_path / "new"
    cases: list[tuple[int, list[object], str]] = [
        (2, ["run", tmp_path / "nowhere", "-w", new], "nowhere"),
        (2, ["run", tmp_path / "no\x1b[31mwhere", "-w", new], "no\\x1b[31mwhere"),
        (2, ["run", source, "-w", new, "--forget", tmp_path / "other"], "to forget, found none"),
        (3, ["run", tmp_path / "empty", "-w", new], "found no file at all"),
        (2, ["run", source, "-w", new, "--budget", "0"], "budget"),
        (2, ["run", source, "-w", new, "--budget", "140%"], "budget"),
        (2, ["run", source, "-w", new, "--encoder", "pixel"], "pixels"),
        (2, ["run", source, "-w", new, "--recipe", tmp_path / "r.toml"], "did you mean selection.seed"),
        (2, ["run", source, "-w", tmp_path / "file.txt"], "folder"),
        (2, ["run", source, "-w", tmp_path / "other"], "name a new folder"),
        (2, ["run", source, "-w", tmp_path / "file.txt" / "w"], "found the file"),
        (2, ["run", source, "-w", "/proc/w"], "change its permissions"),
        (2, ["run", "-w", new], "name one"),
        (2, ["cut", "-w", tmp_path / "other", "--at", "5%"], "wtl.json"),
        (2, ["run", source, "--wrokspace", new], "--workspace"),
        (2, ["nosuch"], "nosuch"),
    ]
    for code, args, told in cases:
        done = wtl_here(*args)
        assert done.returncode == code, (args, done.stderr)
        assert told in done.stderr, (args, done.stderr)
        assert "Traceback" not in done.stderr
        assert "Value error" not in done.stderr
        assert done.stdout == ""
    assert not new.exists()


def test_a_report_that_is_gone_is_not_named_as_if_it_were_there(wtl_here: Wtl, source: Path, tmp_path: Path) -> None:
    report = tmp_path / "w" / refresh(tmp_path / "w", source).report
    report.unlink()
    done = wtl_here("report", "-w", tmp_path / "w")
    assert (done.returncode, done.stdout) == (1, "")
    assert f"{report}: expected the report of refresh 1, found no file" in done.stderr
    other = Recipe.model_validate({"encoder": {"name": "pixels"}, "selection": {"budget": "7%"}})  # as it advises
    again = refresh(tmp_path / "w", recipe=other)
    assert wtl_here("report", "-w", tmp_path / "w").stdout.strip() == str(tmp_path / "w" / again.report)


def test_a_deleted_source_is_named_and_can_be_forgotten(wtl: Wtl, source: Path, tmp_path: Path) -> None:
    work, more = tmp_path / "w", tmp_path / "more"
    more.mkdir()
    (more / "x.jpg").write_bytes(make_jpeg(77_777))
    assert refresh(work, source, more).counts.samples == 65
    shutil.rmtree(more)
    refused = wtl("run", "-w", work)
    assert refused.returncode == 2
    assert f"wtl run --forget {more}" in refused.stderr
    left = result_of(wtl("run", "-w", work, "--forget", more, "--json"))
    assert (left["samples"], list(left["by_source"])) == (64, [str(source)])


@pytest.mark.parametrize(
    ("name", "told"), [("a.jpg", "1 refused (1 not_an_image)"), ("a.txt", "1 files that are no images; check the path")]
)
def test_a_refusal_inside_the_flow_is_one_message_and_leaves_no_refresh(
    wtl: Wtl, wtl_here: Wtl, tmp_path: Path, name: str, told: str
) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / name).write_bytes(b"junk")
    done = wtl("run", tmp_path / "source", "-w", tmp_path / "w", "--encoder", "pixels", "--json")
    assert done.returncode == 3
    assert "Traceback" not in done.stderr
    assert done.stderr.count(told) == 1, done.stderr
    assert "ERROR" not in done.stderr
    assert done.stdout == ""
    status = result_of(wtl_here("status", "-w", tmp_path / "w", "--json"))
    assert (status["refresh"], status["writer"]) == (None, None)


def test_doctor_says_what_this_machine_can_do(wtl_here: Wtl) -> None:
    result = result_of(wtl_here("doctor", "--json"))
    assert result["is_good"]
    assert {"prefect", "torch", "processor", "fastapi"} <= {finding["what"] for finding in result["findings"]}


def test_help_lists_the_commands(wtl_here: Wtl) -> None:
    text = wtl_here("--help", env={"COLUMNS": "80"}).stdout
    for command in ("run", "status", "doctor", "cut", "report", "labels", "skip", "similar"):
        assert command in text
    for commands in (["run", "status", "cut", "report", "labels", "similar"], ["up", "maintain", "doctor"]):
        places = [text.index(f"\n  {command} ") for command in commands]
        assert places == sorted(places)
    assert not [line for line in text.splitlines()[1:] if line.endswith("...")]


def test_without_a_command_the_five_that_matter_are_shown(wtl_here: Wtl) -> None:
    done = wtl_here()
    assert (done.returncode, done.stdout) == (2, "")
    shown = [line.split()[1] for line in done.stderr.splitlines() if line.startswith("  wtl ")]
    assert shown == ["run", "report", "cut", "labels", "status"]


def test_the_version_is_that_of_the_package_and_its_commit(wtl_here: Wtl) -> None:
    done = wtl_here("--version")
    assert done.returncode == 0
    assert re.fullmatch(r"wtl 0\.1\.0( \([0-9a-f]{7,}\))?\n", done.stdout)


def test_the_shell_completes_commands_and_encoders(wtl_alone: Wtl) -> None:
    for words, completed in (("wtl st", "plain,status"), ("wtl run --encoder ti", "plain,timm:")):
        place = str(len(words.split()) - 1)
        asked = {"_WTL_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": place}
        assert wtl_alone(env=asked).stdout.splitlines() == [completed]


def test_stages_are_heard_by_who_asks_for_it(wtl_here: Wtl, source: Path, tmp_path: Path) -> None:
    refresh(tmp_path / "w", source)
    first = f"run          all known sources into workspace {tmp_path}/w"
    assert wtl_here("run", "-w", tmp_path / "w").stderr == f"{first}\n"
    assert wtl_here("run", "-w", tmp_path / "w", "-v").stderr.splitlines()[1].endswith(f"{source}: 27 objects")


def test_a_traceback_is_shown_to_who_asks_for_it(wtl_here: Wtl, tmp_path: Path) -> None:
    for more, is_shown in ((["--debug"], True), ([], False)):
        done = wtl_here("status", "-w", tmp_path / "none", *more)
        assert done.returncode == 2
        assert ("Traceback" in done.stderr) == is_shown
        assert "expected a workspace" in done.stderr.splitlines()[-1]


def test_an_automatic_policy_trains_the_next_encoder_through_the_flow(wtl: Wtl, source: Path, tmp_path: Path) -> None:
    recipe, workspace = tmp_path / "r.toml", tmp_path / "workspace"
    recipe.write_text(
        '[encoder]\nname = "ssl"\nepochs = 1\nside_px = 16\nwidth = 8\nretrain = "automatic"\nretrain_growth = 1.5\n'
    )
    first = result_of(wtl("run", source, "-w", workspace, "--recipe", recipe, "--json"))
    for seed in range(100, 140):
        (source / f"{seed}.jpg").write_bytes(make_jpeg(seed))
    grown, third = (result_of(wtl("run", "-w", workspace, "--json")) for _ in range(2))
    assert (grown["encoder"], grown["vectors"]) == (first["encoder"], 104)
    assert third["encoder"] != first["encoder"]
    assert third["vectors"] == third["samples"] == 104


@pytest.mark.parametrize("command", ["run", "deploy"])
def test_a_server_that_is_away_is_named_and_worth_another_try(
    wtl: Wtl, source: Path, tmp_path: Path, command: str
) -> None:
    address = f"http://127.0.0.1:{free_port()}/api"
    done = wtl(command, source, "-w", tmp_path / "w", env={"PREFECT_API_URL": address})
    assert done.returncode == 4, done.stderr
    assert "see that PREFECT_API_URL names one that is up" in done.stderr
    assert "Traceback" not in done.stderr


def ask(server_address: str, what: str, condition: dict[str, Any]) -> list[dict[str, Any]]:
    """What a server holds of `flow_runs` or `artifacts` that fits the condition."""
    body = json.dumps({what: condition}).encode()
    request = urllib.request.Request(f"{server_address}/{what}/filter", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=20) as answer:
        found: list[dict[str, Any]] = json.load(answer)
    return found


def test_a_run_finds_the_server_that_up_keeps_and_shows_itself_there(
    wtl_alone: Wtl, server_address: str, source: Path, tmp_path: Path
) -> None:
    """The supervisor of `wtl up` is played by a process with its words; a state of one that has ended is passed by."""
    address, work = urlsplit(server_address), tmp_path / "w"
    command = [sys.executable, "-c", "import time; time.sleep(200)", "wtl", "up"]
    with subprocess.Popen(command) as supervisor:
        kept = {"pid": supervisor.pid, "host": address.hostname, "port": address.port}
        (tmp_path / "up.json").write_text(json.dumps(kept))
        done = wtl_alone("run", source, "-w", work, "--encoder", "pixels", env={"WTL_STATE": str(tmp_path)})
        supervisor.kill()
    assert done.returncode == 0, done.stderr
    assert f"http://127.0.0.1:{address.port}, which `wtl up` keeps, shows this run" in done.stderr
    runs = ask(server_address, "flow_runs", {"state": {"type": {"any_": ["COMPLETED"]}}})
    shown = [run for run in runs if run["parameters"].get("workspace") == str(work)]
    assert len(shown) == 1
    sentence = result_of(wtl_alone("status", "-w", work, "--json"))["decision"]["sentence"]
    assert done.stdout.splitlines()[0] == sentence
    reports = ask(server_address, "artifacts", {"flow_run_id": {"any_": [shown[0]["id"]]}, "key": {"any_": ["report"]}})
    told = [(report["description"], "Report of refresh 1." in report["data"]) for report in reports]
    assert told == [(sentence, True)]
    assert up.running_place(tmp_path) is None


def test_a_server_of_its_own_that_cannot_start_is_said_with_the_reason(
    wtl_alone: Wtl, source: Path, tmp_path: Path
) -> None:
    database = f"sqlite+aiosqlite:///{tmp_path}/nowhere/prefect.db"
    env = {"PREFECT_SERVER_DATABASE_CONNECTION_URL": database, "TMPDIR": str(tmp_path)}
    done = wtl_alone("run", source, "-w", tmp_path / "w", "--encoder", "pixels", env=env)
    assert (done.returncode, done.stdout) == (4, ""), done.stderr
    first, *_ = lines = done.stderr.splitlines()
    assert first == f"run          {source} into workspace {tmp_path}/w", "said before the server is waited for"
    (message,) = [line for line in lines if line.startswith("wtl: ")]
    assert "the Prefect server does not answer" in message
    assert "unable to open database file" in message or "Application startup failed" in message
    assert not list(tmp_path.glob("wtl-server-*")), "nothing is left of the server"


@pytest.mark.parametrize(
    ("number", "code", "send"),
    [
        (signal.SIGINT, 130, os.killpg),
        (signal.SIGTERM, 143, os.kill),
        (signal.SIGKILL, -9, os.kill),
        pytest.param(signal.SIGTERM, 143, os.killpg, marks=pytest.mark.slow),
    ],
)
def test_an_interrupted_run_ends_at_once_and_its_server_with_it(
    prefect_home: Path,
    source: Path,
    tmp_path: Path,
    number: signal.Signals,
    code: int,
    send: Callable[[int, int], None],
) -> None:
    """A terminal's Ctrl-C, and `timeout`, reach all processes of the command; others the first alone."""
    marker, work = tmp_path / "marker", tmp_path / "w"
    plan = {"function": "wtl_core.pipeline:ensure_encoder", "when": "before", "marker": str(marker)}
    environment = {**os.environ, "PREFECT_HOME": str(prefect_home), "WTL_TEST_STALL": json.dumps(plan)}
    environment |= {"PYTHONPATH": os.pathsep.join([str(STALL), *filter(None, [os.environ.get("PYTHONPATH")])])}
    command = [str(Path(sys.executable).with_name("wtl")), "run", source, "-w", work, "--encoder", "pixels"]
    process = subprocess.Popen(
        [*map(str, command)], env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    started: list[psutil.Process] = []
    try:
        until(marker.exists, seconds=120, what="the run stands still", every=0.1)
        started = descendants(process.pid)
        assert started
        send(process.pid, number)
        _, told = process.communicate(timeout=40)
        assert process.returncode == code, told
        if number == signal.SIGKILL:
            until(lambda: not any(map(is_alive, started)), seconds=40, what="the server ends", every=0.1)
            return
        assert "wtl: interrupted; what was finished is kept" in told
        assert not [child for child in started if is_alive(child)]
        assert not (work / "lease.json").exists()
    finally:
        process.kill()
        for child in filter(is_alive, started):
            child.kill()


def test_ctrl_c_keeps_what_is_trained_and_the_next_run_goes_on_there(
    prefect_home: Path, source: Path, tmp_path: Path
) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('[encoder]\nname = "ssl"\nepochs = 20000\nwidth = 8\nside_px = 16\nbatch_images = 16\n')
    command = [str(Path(sys.executable).with_name("wtl")), "run", str(source), "-w", str(tmp_path / "w")]
    command += ["--recipe", str(recipe)]
    environment = {**os.environ, "PREFECT_HOME": str(prefect_home)}
    log = tmp_path / "log"

    def interrupted() -> tuple[str, int]:
        """What a run says that Ctrl-C ends a while after its training began, and the steps that are kept."""
        with log.open("w") as told:
            process = subprocess.Popen(command, env=environment, stderr=told, start_new_session=True)
            try:
                until(lambda: " steps a second" in log.read_text(), seconds=240, what="it trains", every=0.2)
                os.killpg(process.pid, signal.SIGINT)
                assert process.wait(40) == 130, log.read_text()
            finally:
                process.kill()
        said = r"wtl: interrupted; ([\d,]+) of 80,000 steps of the training are kept .* the next run goes on from there"
        found = re.search(said, log.read_text())
        assert found is not None, log.read_text()
        return log.read_text(), int(found[1].replace(",", ""))

    first, done = interrupted()
    assert "encoder: the training of ssl on 64 images takes 80,000 steps; Ctrl-C keeps what is trained" in first
    second, later = interrupted()
    assert f"goes on at step {done:,} and takes {80_000 - done:,} steps" in second
    assert later > done > 0


def test_a_relative_weights_file_is_taken_from_the_current_folder_once(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From then on the workspace knows it by its absolute path, so the same call has nothing new to do."""
    name = timm_weights("test_resnet", tmp_path)
    kind, _, path = name.partition("@")
    recipe = Recipe.model_validate({"encoder": {"name": name}})
    refresh(tmp_path / "w", source, recipe=recipe)
    (tmp_path / "r.toml").write_text(f'[encoder]\nname = "{kind}@{Path(path).name}"\n')
    monkeypatch.chdir(tmp_path)
    for given in (["--encoder", f"{kind}@{Path(path).name}"], ["--recipe", "r.toml"]):
        done = CliRunner().invoke(cli, ["run", "-w", "w", *given])
        assert (done.exit_code, "nothing new" in done.stdout) == (0, True), done.output
