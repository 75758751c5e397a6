"""The demo's page served on loopback: many clients, hostile ones, and its end."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import torch

from syncflow.clip import Clip
from syncflow.serving import demo
from syncflow.serving.studio import MOST_BYTES, MOST_TAKES, Studio
from tests import browser
from tests.stand_in_model import Model

pytest.importorskip("gradio")
ROOT = Path(__file__).parents[1]
JSON = {"Content-Type": "application/json"}
UPLOADED = {"_type": "gradio.FileData"}


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


class Client:
    """Speaks the page's own protocol, as curl would."""

    def __init__(self, port: int) -> None:
        self.base = f"http://127.0.0.1:{port}"

    def open(self, path: str, data: bytes | None = None, **headers: str) -> bytes:
        request = urllib.request.Request(self.base + path, data, headers)
        with urllib.request.urlopen(request, timeout=120) as answer:
            return answer.read()

    def status(self, path: str, data: bytes | None = None, **headers: str) -> int:
        try:
            self.open(path, data, **headers)
        except urllib.error.HTTPError as error:
            return error.code
        return 200

    def call(self, name: str, *given: object) -> tuple[str, object]:
        """("complete", values), ("error", why) or ("full", why)."""
        body = json.dumps({"data": given}).encode()
        try:
            begun = self.open(f"/gradio_api/call/{name}", body, **JSON)
        except urllib.error.HTTPError as error:
            return "full" if error.code == 503 else "refused", error.read().decode()
        number = json.loads(begun)["event_id"]
        kind = "error"
        for kind, value in self._told(name, number):
            if kind in ("complete", "error"):
                return kind, value
        return kind, None

    def events(self, name: str, *given: object) -> list[tuple[str, object]]:
        """All that is told until the end."""
        body = json.dumps({"data": given}).encode()
        begun = self.open(f"/gradio_api/call/{name}", body, **JSON)
        return list(self._told(name, json.loads(begun)["event_id"]))

    def _told(self, name: str, number: str) -> Iterator[tuple[str, object]]:
        kind = "error"
        for line in self.open(f"/gradio_api/call/{name}/{number}").decode().splitlines():
            if line.startswith("event: "):
                kind = line[7:]
            elif line.startswith("data: "):
                yield kind, json.loads(line[6:])

    def upload(self, name: str, content: bytes) -> str:
        edge = "syncflow-edge"
        body = (
            f'--{edge}\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        ).encode() + content + f"\r\n--{edge}--\r\n".encode()  # fmt: skip
        kind = f"multipart/form-data; boundary={edge}"
        return json.loads(self.open("/gradio_api/upload", body, **{"Content-Type": kind}))[0]

    def text(self, prompt: object = "a metal ball bounces", seed: object = 0, takes: object = 1,
             guidance: object = 2, steps: object = 4, seconds: object = 2,
             without: object = "", contacts: object = "") -> tuple[str, object]:  # fmt: skip
        given = (prompt, seed, takes, guidance, steps, seconds, without, contacts)
        return self.call("text_to_clip", *given)

    def video(self, file: object, prompt: str = "") -> tuple[str, object]:
        return self.call("video_to_audio", file, prompt, 0, 1, "")


@pytest.fixture(scope="module")
def served():
    """(client, studio) of a running server."""
    studio, port = Studio(Model()), free_port()
    before = os.environ.get("GRADIO_TEMP_DIR")
    blocks = demo.page(studio)
    launched = demo.launch(blocks, "127.0.0.1", port)
    try:
        yield Client(port), studio
    finally:
        launched.close(verbose=False)
        studio.close()
        os.environ.pop("GRADIO_TEMP_DIR", None)
        if before is not None:
            os.environ["GRADIO_TEMP_DIR"] = before


def film(folder: Path) -> bytes:
    clip = Clip(torch.zeros(16, 3, 32, 32, dtype=torch.uint8), torch.ones(48000) * 0.1)
    return clip.save(folder / "film.mp4").read_bytes()


def players(values: list) -> list[dict]:
    """What is shown of each take: the video's part of (remarks, video, plot, line, video ...)."""
    assert len(values) == 1 + 3 * MOST_TAKES + 1
    return [value for value in values[1:-1:3]]


def path_of(value: dict) -> str:
    """Of a player's value, whatever Gradio wraps it into."""
    while "path" not in value:
        value = value.get("video") or value["value"]
    return value["path"]


def test_the_page_has_the_fields_labels(served):
    client, studio = served
    config = json.loads(client.open("/config"))
    labels = {part["props"].get("label") for part in config["components"]}
    assert labels >= {"Prompt", "Seed", "Guidance", "Takes", "Steps", "Seconds", "First frame",
                      "Negative audio prompt", "Examples", "Vocabulary"}  # fmt: skip
    shown = json.dumps(config["components"])
    assert "metallic" in shown and studio.model.config.vocabulary.examples[1] in shown
    assert client.status("/") == 200


def test_a_clip_and_its_drawing_come_back(served):
    client, studio = served
    kind, values = client.text("a dog barks", seed=7, takes=2)
    assert kind == "complete" and "vocabulary" in values[0]
    for value in players(values)[:2]:
        content = client.open(f"/gradio_api/file={path_of(value)}")
        assert content[4:8] == b"ftyp"
    assert client.open(f"/gradio_api/file={path_of(values[2])}").startswith(b"\x89PNG")
    assert studio.folder in Path(path_of(values[2])).parents


def test_times_in_the_box_reach_the_model(served):
    client, studio = served
    assert client.text("a ball", contacts=" 0.4, 1.1 ")[0] == "complete"
    assert studio.model.asked[-1]["contacts"] == [0.4, 1.1]
    assert client.text("a ball", contacts=" ")[0] == "complete"
    assert "contacts" not in studio.model.asked[-1]


@pytest.mark.parametrize("bins", [0, 8])
def test_the_box_for_times_is_there_where_the_model_takes_them(monkeypatch, bins):
    monkeypatch.setenv("GRADIO_TEMP_DIR", "")  # which a page sets: the server's comes back
    model = Model()
    ddit = model.config.ddit.model_copy(update={"event_bins": bins})
    model.config = model.config.model_copy(update={"ddit": ddit})
    with closing(Studio(model)) as studio:
        page = demo.page(studio)
        labels = [part["props"].get("label") or "" for part in page.config["components"]]
    assert any(label.startswith("Contacts: when things touch") for label in labels) == bool(bins)


def test_previews_come_before_the_clip(served):
    client, studio = served
    kinds = client.events("text_to_clip", "a ball", 0, 1, 2, 4, 2, "", "")
    shown = [values[-1] for kind, values in kinds if kind == "generating" and values[-1]]
    assert len(shown) >= 2 and studio.shows
    assert client.open(f"/gradio_api/file={path_of(shown[0])}").startswith(b"\x89PNG")
    kind, last = kinds[-1]
    assert kind == "complete" and not last[-1].get("visible", True)
    assert len(players(last)) == MOST_TAKES


def test_a_client_stops_its_own_clip_alone(served):
    client, studio = served
    studio.model.endless = True
    try:
        page = threading.Thread(target=client.text)
        page.start()
        end = time.monotonic() + 20
        while not studio.model.asked[-1].get("callback") and time.monotonic() < end:
            time.sleep(0.01)
        studio.stop("somebody else")
        studio.stop(None)
        with studio.stoppable("a page") as stop:
            studio.stop("a page")
            assert stop.is_set()
        page.join(0.3)
        assert page.is_alive()
    finally:
        studio.model.endless = False
    page.join(60)
    assert not page.is_alive() and client.text()[0] == "complete"


def test_an_uploaded_film_gets_sound(served, tmp_path):
    client, studio = served
    path = client.upload("my film.mp4", film(tmp_path))
    assert studio.uploads in Path(path).parents
    file = {"path": path, "meta": UPLOADED}
    kind, values = client.video(file)
    assert kind == "complete", values
    assert client.open(f"/gradio_api/file={path_of(players(values)[0])}")[4:8] == b"ftyp"


def test_forty_clients_are_each_answered(served):
    client, studio = served
    studio.model.seconds, studio.model.most_at_once = 0.02, 0
    answers: dict[int, tuple[str, object]] = {}

    def one(seed: int) -> None:
        answers[seed] = client.text(seed=seed)

    threads = [threading.Thread(target=one, args=(seed,)) for seed in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(240)
    studio.model.seconds = 0
    assert len(answers) == 40 and studio.model.most_at_once == 1
    kinds = [kind for kind, _ in answers.values()]
    assert set(kinds) <= {"complete", "full"} and kinds.count("complete") >= 16
    assert all("full" in why.lower() for kind, why in answers.values() if kind == "full")
    made = {seed: path_of(players(v)[0]) for seed, (k, v) in answers.items() if k == "complete"}
    assert len(set(made.values())) == len(made)
    for seed, path in list(made.items())[:5]:
        clip = Clip.load(path)
        assert abs(clip.video.float().mean().item() - seed % 200) < 4, "another client's clip"


HOSTILE = {
    "long prompt": ("text", {"prompt": "x" * 100_000}),
    "no prompt": ("text", {"prompt": " "}),
    "markup": ("text", {"prompt": "", "without": "<img src=x onerror=alert(1)>"}),
    "many takes": ("text", {"takes": 10**9}),
    "endless steps": ("text", {"steps": 10**12}),
    "hours": ("text", {"seconds": 1e9}),
    "times of text": ("text", {"contacts": "<img src=x onerror=alert(1)>"}),
    "many times": ("text", {"contacts": "0.1," * 10_000}),
    "a seed of text": ("text", {"seed": "1; rm -rf /"}),
    "a server's file": ("video", {"file": {"path": "/etc/passwd", "meta": UPLOADED}}),
    "a file by URL": ("video", {"file": {"path": "http://127.0.0.1:1/x.mp4", "meta": UPLOADED}}),
    "a protocol": ("video", {"file": {"path": "concat:/etc/passwd", "meta": UPLOADED}}),
    "no file": ("video", {"file": None}),
    "a number for a file": ("video", {"file": 7}),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_input_is_refused_and_the_next_client_served(served, name):
    client, studio = served
    before = len(studio.model.asked)
    way, given = HOSTILE[name]
    kind, why = getattr(client, way)(**given)
    assert kind in ("error", "refused"), why
    assert len(studio.model.asked) == before
    told = json.dumps(why)
    assert len(told) < 400 and "Traceback" not in told and "root:" not in told
    assert str(studio.folder) not in told and "<img" not in told
    assert client.text()[0] == "complete"


def test_damaged_uploads_are_one_line(served, tmp_path):
    client, studio = served
    for name, content in {
        "empty.mp4": b"", "text.mp4": b"not a film", "cut.mp4": film(tmp_path)[:200],
        "../../up.mp4": b"x", "-rf.mp4": b"x", "x" * 200 + ".mp4": b"x",
    }.items():  # fmt: skip
        path = client.upload(name, content)
        assert studio.uploads in Path(path).resolve().parents
        kind, why = client.video({"path": path, "meta": UPLOADED})
        assert kind == "error", (name, why)
        assert str(studio.folder) not in json.dumps(why), (name, why)


def test_nothing_else_of_the_server_is_read(served, tmp_path):
    client, _ = served
    secret = Path(tempfile.gettempdir()) / "syncflow-secret.txt"
    secret.write_text("secret")
    try:
        here = [secret, ROOT / "README.md"]
        for path in [*here, "/etc/passwd", "../../../../etc/passwd", "/proc/self/environ"]:
            assert client.status(f"/gradio_api/file={path}") in (400, 403, 404), path
    finally:
        secret.unlink()


def test_large_uploads_and_ways_around_the_queue_are_refused(served):
    client, studio = served
    with pytest.raises(urllib.error.URLError):
        client.upload("large.mp4", bytes(MOST_BYTES + 2**20))
    body = json.dumps({"data": ["a ball", 0, 1, 2, 4, 2, "", ""]}).encode()
    before = len(studio.model.asked)
    for way in ("run", "api"):
        path = f"/gradio_api/{way}/text_to_clip"
        assert client.status(path, body, **JSON) >= 400
    assert len(studio.model.asked) == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_files_are_gone_at_the_end(tmp_path, number):
    port = free_port()
    code = (
        "import signal; from tests.stand_in_model import Model\n"
        "from syncflow.serving.demo import serve\n"
        # A shell without job control has what it starts in the background ignore Ctrl-C.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"try: serve(Model(), port={port})\nexcept KeyboardInterrupt: pass"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    environment.pop("GRADIO_TEMP_DIR", None)
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True,
                               env=environment, cwd=ROOT)  # fmt: skip
    try:
        assert str(port) in process.stdout.readline()
        client = Client(port)
        client.upload("a.mp4", b"x")
        assert client.text()[0] == "complete"
        (folder,) = tmp_path.glob("syncflow-demo-*")
        assert [path for path in folder.rglob("*") if path.is_file()]
        process.send_signal(number)
        assert process.wait(60) == 0
        end = time.monotonic() + 10
        while folder.exists() and time.monotonic() < end:
            time.sleep(0.1)
        assert not folder.exists()
        assert not [path for path in tmp_path.rglob("*.mp4")]
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


BUTTON = "[...document.querySelectorAll('button')].find(b => b.innerText.trim() == {0!r})"


@pytest.mark.slow
@pytest.mark.skipif(browser.CHROMIUM is None, reason="needs Chromium")
def test_a_person_makes_a_clip_in_a_real_browser(served, tmp_path):
    client, studio = served
    with browser.Browser(tmp_path / "profile", client.base) as page:
        page.wait(BUTTON.format("Generate"))
        text = page.value("document.body.innerText")
        for label in ("Prompt", "Seed", "Guidance", "Takes", "Negative audio prompt", "Examples"):
            assert label in text, label
        page.value(BUTTON.format("Vocabulary") + "?.click()")
        dice = "[...document.querySelectorAll('button')].find(b => b.innerText.includes('Random'))"
        page.value(f"{dice}.click()")
        number = "[...document.querySelectorAll('input[type=number]')].map(i => +i.value)"
        page.wait(f"Math.max(...{number}) > 1000")
        before = len(studio.model.asked)
        page.value(BUTTON.format("Generate") + ".click()")
        page.wait("[...document.querySelectorAll('video')].some(v => v.readyState >= 1)")
        page.wait("[...document.querySelectorAll('img')].some(i => i.naturalWidth == 992)")
        assert len(studio.model.asked) == before + 1
        assert studio.model.asked[-1]["seed"] > 1000


@pytest.mark.slow
@pytest.mark.skipif(browser.CHROMIUM is None, reason="needs Chromium")
def test_a_person_sees_a_preview_and_stops_the_clip(served, tmp_path):
    client, studio = served
    studio.model.endless = True
    try:
        with browser.Browser(tmp_path / "profile", client.base) as page:
            page.wait(BUTTON.format("Generate"))
            page.value(BUTTON.format("Generate") + ".click()")
            page.wait("[...document.querySelectorAll('img')].some(i => i.naturalWidth == 768)")
            page.value(BUTTON.format("Stop") + ".click()")
            page.wait("document.body.innerText.includes('Stopped.')")
    finally:
        studio.model.endless = False
    assert client.text()[0] == "complete"
