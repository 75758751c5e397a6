"""The process and its user: pipes that close, Ctrl-C while it starts, progress in a log."""

import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import syncflow
from syncflow import progress

ROOT = Path(syncflow.__file__).parents[1]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def without_reader(*argv: str) -> tuple[int, str]:
    """Exit code and stderr of a command whose output nobody reads."""
    process = subprocess.Popen(
        [sys.executable, "-m", "syncflow", *argv],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT,
    )  # fmt: skip
    process.stdout.close()
    told = process.stderr.read()
    return process.wait(), told


@pytest.mark.parametrize("command", ["--version", "generate --help", "info"])
def test_a_reader_who_has_seen_enough_is_no_error(command) -> None:
    code, told = without_reader(*command.split())
    assert code == 0 and "ipe" not in told, told


def test_the_work_goes_on_without_a_reader(tmp_path) -> None:
    out = tmp_path / "made"
    argv = f"data impacts --out {out} --clips 2 --size 32 --seconds 1 --workers 1 --no-progress"
    assert without_reader(*argv.split()) == (0, "")
    assert len(list(out.rglob("*.mp4"))) == 2


def test_errors_that_nobody_reads_are_no_traceback() -> None:
    script = f"{sys.executable} -m syncflow sing 2>&1 | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, env=ENVIRONMENT)
    assert (done.stdout, done.stderr) == ("2\n", "")


def test_closed_streams_are_no_error(monkeypatch) -> None:
    script = f"{sys.executable} -m syncflow --version >&-; echo $?"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, env=ENVIRONMENT)
    assert (done.stdout, done.stderr) == ("0\n", "")
    monkeypatch.setattr(sys, "stderr", None)
    assert list(progress.bar(range(2))) == [0, 1]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_output_on_a_full_disk_is_one_line() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "syncflow", "--version"],
            stdout=full, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT,
        )  # fmt: skip
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert "No space left" in done.stderr


_IMPORTED = """
import os, signal
if {late}:
    __spec__._initializing = False  # what Python sets when the import is over
try:
    os.kill(os.getpid(), signal.SIGINT)
    for _ in range(1000):
        pass
except KeyboardInterrupt:
    raise ImportError("multiarray failed to import") from None
"""


@pytest.mark.parametrize("late", [False, True])
def test_ctrl_c_during_an_import_is_one_line(tmp_path, late) -> None:
    """C extensions turn it into an ImportError, as this torch does."""
    (tmp_path / "torch.py").write_text(_IMPORTED.format(late=late))
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-m", "syncflow", "generate", "a ball"],
        capture_output=True, text=True, cwd=tmp_path, env={**ENVIRONMENT, "PYTHONPATH": path},
        # What runs in the background may have been told to ignore it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (130, "syncflow: error: interrupted\n")


_DROPPED = """
import argparse, os, signal, sqlite3, sys
from syncflow import cli

def interrupts():
    os.kill(os.getpid(), signal.SIGINT)
    for _ in range(1000):
        pass

def drops(args):
    database, heard = sqlite3.connect(":memory:"), 0
    database.create_function("interrupts", 0, interrupts)
    while True:  # until an interrupt comes through
        try:
            database.execute("select interrupts()").fetchall()
        except sqlite3.Error:  # in place of the interrupt, which is gone
            heard += 1
            print(heard, flush=True)
            while heard >= 3:
                pass

sys.modules["torch"] = sys  # long imported
cli._parser = lambda: argparse.Namespace(parse_args=lambda argv: argparse.Namespace(handler=drops))
code = cli.main(["x", *sys.argv[1:]])
print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)
sys.exit(code)
"""


def interrupted(*argv: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *argv], capture_output=True, text=True, env=ENVIRONMENT, timeout=60,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip


def test_ctrl_c_that_a_library_drops_is_heard_all_the_same() -> None:
    done = interrupted("-c", _DROPPED)
    assert (done.returncode, done.stderr) == (130, "syncflow: error: interrupted\n")
    assert done.stdout.endswith("True\n")


def test_with_debug_it_ends_the_process_as_any_interrupt_does(tmp_path) -> None:
    """A script's exit code is 130 for the very type alone, and subprocess waits less for it."""
    (tmp_path / "script.py").write_text(_DROPPED)
    done = interrupted(str(tmp_path / "script.py"), "--debug")
    assert done.returncode in (130, -signal.SIGINT)
    assert done.stderr.splitlines()[-1] == "KeyboardInterrupt"


def test_training_says_it_once() -> None:
    script = """
import os, signal, sys
from syncflow import cli
from syncflow.training import runner

def run(*given, **options):
    os.kill(os.getpid(), signal.SIGINT)
    for _ in range(1000):
        pass

runner.run = run
sys.exit(cli.main(["train", "--config", "impacts/recipe"]))
"""
    done = interrupted("-c", script)
    assert done.returncode == 130 and done.stderr.count("interrupted") == 1, done.stderr


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_lines_where_there_is_no_terminal(monkeypatch) -> None:
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.05)
    log = io.StringIO()
    with progress.bar(total=2000, desc="generate", file=log) as bar:
        for step in range(2000):
            bar.set_postfix_str(f"video {step}", refresh=False)
            bar.update()
            if step in (500, 1500):
                import time

                time.sleep(0.06)
    lines = log.getvalue().splitlines()
    assert "\r" not in log.getvalue() and "\x1b" not in log.getvalue()
    assert lines[0].startswith("generate: 0% 0/2000")
    assert lines[-1].startswith("generate: 100% 2000/2000") and "video 1999" in lines[-1]
    assert 3 <= len(lines) <= 8, lines


def test_progress_on_a_terminal_is_one_line_that_is_drawn_over() -> None:
    screen = Terminal()
    for _ in progress.bar(range(3), desc="x", file=screen):
        pass
    assert screen.getvalue().count("\r") >= 2 and screen.getvalue().count("\n") == 1


def test_progress_can_be_turned_off() -> None:
    log = io.StringIO()
    assert list(progress.bar(range(3), shown=False, file=log)) == [0, 1, 2]
    assert log.getvalue() == ""
