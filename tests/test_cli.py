"""The command line as a user meets it: real processes, exit codes and what they leave behind."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import syncflow
from syncflow.cli import main
from syncflow.commands import output_paths
from syncflow.data import media

ROOT = Path(syncflow.__file__).parents[1]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def run(*argv: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "syncflow", *argv]
    return subprocess.run(command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True)


def test_version_and_help_load_nothing_heavy(tmp_path) -> None:
    done = run("--version", folder=tmp_path)
    assert (done.returncode, done.stdout) == (0, f"syncflow {syncflow.__version__}\n")
    code = (
        "import sys; from syncflow.cli import main\n"
        "try: main(['generate', '--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'av', 'transformers', 'diffusers'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True
    )
    assert "--negative-prompt" in done.stdout and "example: syncflow generate" in done.stdout
    assert done.stdout.endswith("[]\n"), done.stdout[-200:] + done.stderr


@pytest.mark.parametrize(
    "command",
    [
        "generate",
        "data impacts",
        "train",
        "evaluate sync",
        "evaluate suite",
        "evaluate fit",
        "evaluate sweep",
        "evaluate calibrate",
        "evaluate redraw",
        "demo",
        "info",
    ],  # fmt: skip
)
def test_every_command_has_help_with_an_example(capsys, command) -> None:
    with pytest.raises(SystemExit) as stop:
        main([*command.split(), "--help"])
    assert stop.value.code == 0
    assert f"example: syncflow {command}" in capsys.readouterr().out


@pytest.mark.skipif(sys.platform != "linux", reason="libgomp is PyTorch's on Linux")
@pytest.mark.parametrize("users", [None, "ACTIVE"])
def test_waiting_threads_sleep_unless_the_user_says_otherwise(tmp_path, users) -> None:
    """What libgomp itself has read by the time that torch is there."""
    environment = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"}
    environment |= {"OMP_DISPLAY_ENV": "TRUE"} | ({"OMP_WAIT_POLICY": users} if users else {})
    command = [sys.executable, "-m", "syncflow", "info"]
    said = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert said.returncode == 0, said.stderr
    assert f"OMP_WAIT_POLICY = '{users or 'PASSIVE'}'" in said.stderr


def test_info(tmp_path) -> None:
    done = run("info", "--json", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["syncflow"] == syncflow.__version__ and facts["torch"] == torch.__version__
    assert facts["devices"] and isinstance(facts["kernels"]["active"], bool)


def test_info_table_is_aligned(capsys) -> None:
    assert main(["info"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["syncflow", syncflow.__version__]
    values = {line.index(line.split(maxsplit=1)[1]) for line in lines}
    assert len(values) == 1, lines


MISTAKES = [
    (["generate"], "no prompt"),
    (["generate", ""], "empty prompt"),
    (["generate", "  "], "empty prompt"),
    (["generate", "x", "-o", "gone/a.mp4"], "there is no folder 'gone'"),
    (["generate", "x", "-o", "a.avi"], "must end in .mp4"),
    (["generate", "x", "y", "-o", "a.mp4"], "2 prompts"),
    (["generate", "x", "y", "-o", "{title}.mp4"], "is not a valid pattern"),
    (["generate", "x", "y", "-o", "{seed}.mp4"], "the same name"),
    (["generate", "x", "--sheet", "-o", "b.mp4"], "'b.png': it is a folder"),
    (["generate", "x", "--video", "gone.mp4"], "no such file: 'gone.mp4'"),
    (["generate", "x", "--video", "text.mp4"], "not a media file"),
    (["generate", "x", "--image", "gone.png"], "no such image: 'gone.png'"),
    (["generate", "x", "--image", "text.mp4", "--video", "text.mp4"], "not both"),
    (["generate", "x", "y", "--height", "48"], "fixed to 64x64"),
    (["generate", "x", "--model", "./gone"], "unknown model './gone'"),
    (["generate", "x", "--steps", "0"], "--steps: it must be a whole number between 1"),
    (["generate", "x", "--seconds", "two"], "at most 1e+06, got two"),
    (["generate", "x", "--guidance", "-1"], "must be a number between 0 and 1000, got -1"),
    (["generate", "x", "--seconds", "inf"], "--seconds: it must be a number, more"),
    (["generate", "x", "--seed", "9" * 30], "--seed: it must be a whole number between 0"),
    (["generate", "x", "-o", "{prompt.x}.mp4"], "is not a valid pattern"),
    (["generate", "x", "-o", "{prompt[x]}.mp4"], "is not a valid pattern"),
    (["generate", "x", "--solver", "magic"], "invalid choice: 'magic'"),
    (["generate", "x", "--sized", "64"], "unrecognized arguments: --sized"),
    (["generate", "x", "--sized", "64"], "(see syncflow generate --help)"),
    (["generate", "x", "--guidnace=3"], "did you mean '--guidance'?"),
    (["evaluate", "sync", "--clip", "3", "--levles", "1"], "did you mean '--levels'?"),
    (["generat", "x"], "did you mean 'generate'? (see syncflow --help)"),
    (["evaluate", "snyc"], "did you mean 'sync'? (see syncflow evaluate --help)"),
    (["generate", "x", "--solver", "eular"], "did you mean 'euler'?"),
    (["a metal ball bounces"], "did you mean syncflow generate 'a metal ball bounces'?"),
    (["data"], "required: WHAT"),
    (["data", "impacts", "--clips", "2"], "required: --out"),
    (["data", "impacts", "--clips", "2", "--out", "text.mp4"], "text.mp4"),
    (["data", "impacts", "--clips", "2", "--out", "d", "--sample-rate", "12345"], "got 12345"),
    (["train", "--config", "gone.json"], "there is no config file 'gone.json'"),
    (["train", "--config", "text.mp4"], ""),
    (["train", "--config", "recipe.json"], "no config file gone.json"),
    (["train", "--config", "recipe.json", "--device", "meat"], "device 'meat' cannot be used"),
    (["evaluate", "sync", "--levels", "a"], "'a' is not a list"),
    (["evaluate", "sync", "--out", __file__], "cannot write into '"),
    (["evaluate", "paper", "--out", f"{__file__}/x"], "it is not a folder"),
    (["evaluate", "sync", "--levels", "1,1"], "names a level twice"),
    (["evaluate", "--suite", "songs"], "invalid choice: 'songs'"),
    (["evaluate", "sweep", "--grid", "[1]"], "is not a JSON object of lists"),
    (["evaluate", "sweep", "--grid", '{"a": [1]}'], "a sweep accepts steps"),
    (["evaluate", "redraw", "nowhere", "--out", "x"], "nowhere"),
    (["evaluate", "suite", "--compare", "x"], "takes NAME=MODEL with each name once, got 'x'"),
    (["demo", "--port", "0"], "--port: it must be a whole number between 1"),
    (["sing"], "invalid choice: 'sing'"),
    ([], "required: COMMAND"),
]


@pytest.mark.parametrize(("argv", "message"), MISTAKES)
def test_a_mistake_is_one_line_and_leaves_nothing(
    tmp_path, monkeypatch, capsys, argv, message
) -> None:
    (tmp_path / "text.mp4").write_text("not a film")
    (tmp_path / "b.png").mkdir()
    render = {"task": "render", "out": "made", "clips": 1}
    (tmp_path / "render.json").write_text(json.dumps(render))
    recipe = {"task": "recipe", "steps": ["render.json", "gone.json"]}
    (tmp_path / "recipe.json").write_text(json.dumps(recipe))
    before = sorted(tmp_path.iterdir())
    monkeypatch.chdir(tmp_path)
    assert main(argv) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("syncflow: error: ") and err.count("\n") == 1, err
    assert message in err
    assert sorted(tmp_path.iterdir()) == before


def test_a_mistake_in_a_real_process(tmp_path) -> None:
    done = run("generate", "x", "-o", "gone/a.mp4", folder=tmp_path)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == "syncflow: error: cannot write 'gone/a.mp4': there is no folder 'gone'\n"
    done = run("generate", "x", "-o", "gone/a.mp4", "--debug", folder=tmp_path)
    assert (
        done.returncode == 1 and "Traceback" in done.stderr and "FileNotFoundError" in done.stderr
    )


def test_data_impacts_writes_clips(tmp_path) -> None:
    argv = "data impacts --out made --clips 2 --size 32 --seconds 1 --workers 1 --no-progress"
    done = run(*argv.split(), folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "made\n"
    clips = sorted((tmp_path / "made").rglob("*.mp4"))
    assert len(clips) == 2
    info = media.probe(clips[0])
    assert (info.seconds, info.fps, info.width, info.height, info.frames) == (1, 16, 32, 32, 16)


@pytest.mark.parametrize("workers", [1, 2])
def test_interrupting_is_one_line_and_leaves_no_half_file(tmp_path, workers) -> None:

    def finished() -> list[Path]:  # a clip that is being written lies in a folder of its own
        return [path for path in tmp_path.rglob("train_*.mp4") if ".partial" not in str(path)]

    argv = f"data impacts --out made --clips 5000 --size 32 --workers {workers} --no-progress"
    process = subprocess.Popen(
        [sys.executable, "-m", "syncflow", *argv.split()],
        cwd=tmp_path,
        env=ENVIRONMENT,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A suite started in the background has SIGINT ignored, and hands that on.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        deadline = time.monotonic() + 120
        while not finished() and time.monotonic() < deadline:
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the workers as well
        _, err = process.communicate(timeout=30)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert (process.returncode, err) == (130, "syncflow: error: interrupted\n")
    made = finished()
    assert 0 < len(made) < 1000
    for path in made[:3] + made[-3:]:
        assert media.read(path)[0].shape[0] == 32  # every file that is there is whole
    assert not list(tmp_path.rglob("*.partial"))


def test_where_clips_go(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)

    def plan(out: str | None, prompts: list[str], takes: int = 1) -> list[str]:
        return [path.as_posix() for path in output_paths.plan(out, prompts, takes, 7).paths]

    assert plan(None, ["A drum!"]) == ["clip.mp4"]
    assert plan("a.webm", ["x"]) == ["a.webm"]
    assert plan("a.mov", ["x"], takes=2) == ["a-1.mov", "a-2.mov"]
    assert plan("{prompt}-{seed}.mkv", ["A drum, hit"]) == ["a-drum-hit-7.mkv"]
    assert not list(tmp_path.iterdir())
    assert plan(None, ["A drum!", "?"]) == ["clips/1-a-drum.mp4", "clips/2-clip.mp4"]
    assert plan("new/deep", ["a", "b"])[1] == "new/deep/2-b.mp4"
    assert plan("new", ["a"], takes=2) == ["new/1-a-1.mp4", "new/1-a-2.mp4"]
    assert not list(tmp_path.iterdir())  # nothing is made before there is a clip
    folder = output_paths.plan("new/deep", ["a", "b"], 1, 7)
    folder.check()
    folder.make()
    assert (tmp_path / "new" / "deep").is_dir()
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="'file' is a file"):
        output_paths.plan("file", ["a", "b"], 1, 7)
    with pytest.raises(NotADirectoryError, match="file' is a file"):
        output_paths.plan("file/deep/", ["a", "b"], 1, 7).check()


def test_sound_for_a_video_is_told_at_the_rate_of_the_video(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    media.write("silent.mp4", torch.zeros(15, 3, 32, 48, dtype=torch.uint8), None, fps=25)
    options = "--video silent.mp4 -o out.mp4 --steps 1 --device cpu --no-progress"
    assert main(["generate", *options.split()]) == 0
    out, err = capsys.readouterr()
    assert out == "out.mp4\n" and "(0.6 s, 48x32 at 25 fps, 48000 Hz)" in err
    assert media.probe("out.mp4").seconds == 0.6


def test_a_suite_gets_what_was_asked_for(monkeypatch, capsys) -> None:
    from syncflow.evaluation.suites import sync

    asked: dict = {}
    monkeypatch.setattr(sync, "run", lambda **options: asked.update(options))
    assert main(["evaluate", "suite", "--clips", "3", "--takes", "2", "--guidance", "2"]) == 0
    assert asked["clips"] == 3 and asked["scope"].takes == 2 and asked["options"]["guidance"] == 2
    assert main(["evaluate", "sync", "--clips", "4", "--calibrate", "5"]) == 0
    assert asked["clips"] == 4 and asked["scope"].calibrate == 5
