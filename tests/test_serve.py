"""The HTTP server, asked by OpenAI's own client over a real socket."""

import contextlib
import http.client
import io
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from syncflow.clip import Clip
from syncflow.config import ModelConfig
from syncflow.serving.jobs import Full, Jobs

# What the client says of OpenAI's own service.
pytestmark = pytest.mark.filterwarnings("ignore:The Sora API")

for package in ("fastapi", "uvicorn", "openai", "prometheus_client"):
    pytest.importorskip(package)

import openai  # noqa: E402
import uvicorn  # noqa: E402
from PIL import Image  # noqa: E402

from syncflow.serving import maker, videos_api  # noqa: E402


class Model:
    """A model that draws a grey clip and minds its steps; ``go`` holds it up."""

    config = ModelConfig()

    def __init__(self) -> None:
        self.asked: list[dict] = []
        self.go = threading.Event()
        self.go.set()

    def generate(self, prompt, *, callback, progress, **options):
        self.asked.append({"prompt": prompt, **options})
        if "break" in prompt:
            raise RuntimeError("a fault of ours")
        if "refuse" in prompt:
            raise ValueError("a sentence that the model refuses")
        for step in range(1, 11):
            self.go.wait(20)
            callback(step, None, None)
        return Clip(torch.full((16, 3, 32, 32), 90, dtype=torch.uint8), torch.zeros(48000))


@contextlib.contextmanager
def served(model, **options):
    """A running server and OpenAI's client for it."""
    application = videos_api.app(maker.Maker(model), **options)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        server = uvicorn.Server(uvicorn.Config(application, log_level="critical"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            base = f"http://127.0.0.1:{port}/v1"
            client = openai.OpenAI(api_key="none", base_url=base, max_retries=0)
            while not server.started:
                time.sleep(0.01)
            client.port, client.jobs = port, application.state.jobs
            yield client
        finally:
            model.go.set()
            server.should_exit = True
            thread.join(20)
            assert not thread.is_alive()
    assert not application.state.jobs.folder.exists()


@pytest.fixture(scope="module")
def running():
    with served(Model()) as client:
        client.model = None
        yield client


def finished(client, id, seconds=20):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        video = client.videos.retrieve(id)
        if video.status in ("completed", "failed"):
            return video
        time.sleep(0.02)
    raise AssertionError(f"not finished after {seconds} s")


def raw(client, method, path, body=None, headers=None):
    """A request as it is, without the client's manners."""
    connection = http.client.HTTPConnection("127.0.0.1", client.port, timeout=20)
    connection.request(method, path, body, headers or {})
    answer = connection.getresponse()
    return answer.status, answer.read()


def test_a_clip_from_the_client(running, tmp_path):
    video = running.videos.create(prompt="a ball", seconds="2", size="64x48")
    assert video.status in ("queued", "in_progress") and video.size == "64x48"
    video = finished(running, video.id)
    assert video.status == "completed" and video.progress == 100 and video.error is None
    assert video.expires_at - video.completed_at == 3600
    running.videos.download_content(video.id).write_to_file(tmp_path / "clip.mp4")
    clip = Clip.load(tmp_path / "clip.mp4")
    assert len(clip.video) == 16 and abs(int(clip.video.float().mean()) - 90) < 4
    picture = running.videos.download_content(video.id, variant="thumbnail").read()
    assert Image.open(io.BytesIO(picture)).size == (32, 32)
    status, sound = raw(running, "GET", f"/v1/videos/{video.id}/content?variant=audio")
    assert status == 200 and sound[:4] == b"RIFF" and len(sound) == 44 + 2 * 48000


def test_options_of_ours_reach_the_model():
    model = Model()
    with served(model) as client:
        video = client.videos.create(prompt="a ball", extra_body={"seed": 2**40 + 1, "steps": 7})
        assert finished(client, video.id).status == "completed"
    asked = model.asked[0]
    assert asked["seed"] == 2**40 + 1 and asked["steps"] == 7 and "height" not in asked


def test_times_of_contacts_reach_a_model_that_takes_them():
    model = Model()
    model.config = ModelConfig.parse({"ddit": {"event_bins": 3}})
    with served(model) as client:
        for given in ([0.4, 1.1], "0.4, 1.1"):
            video = client.videos.create(prompt="a ball", extra_body={"contacts": given})
            assert finished(client, video.id).status == "completed"
            assert model.asked[-1]["contacts"] == [0.4, 1.1]
        with pytest.raises(openai.BadRequestError, match="at 0 to 2 seconds, got 2.5"):
            client.videos.create(prompt="a ball", extra_body={"contacts": [2.5]})


@pytest.mark.parametrize(
    "fields, said",
    [
        ({"prompt": " "}, "empty prompt"),
        ({"prompt": "a ball", "seconds": "0"}, "seconds"),
        ({"prompt": "a ball", "seconds": "1e9"}, "seconds"),
        ({"prompt": "a ball", "seconds": "nan"}, "seconds"),
        ({"prompt": "a ball", "size": "big"}, "size"),
        ({"prompt": "a ball", "size": "0x0"}, "size must be WIDTHxHEIGHT"),
        ({"prompt": "a ball", "size": "64x0"}, "size must be WIDTHxHEIGHT"),
        ({"prompt": "a ball", "size": "\uff16\uff14x\uff16\uff14"}, "size must be WIDTHxHEIGHT"),
        ({"prompt": "a ball", "size": "64x9000"}, "height must be divisible by 16"),
        ({"prompt": "a ball", "extra_body": {"sede": 3}}, "sede"),
        ({"prompt": "a ball", "extra_body": {"seed": -1}}, "seed"),
        ({"prompt": "a" * 5000}, "prompt"),
        ({"prompt": "a ball", "extra_body": {"contacts": [0.4]}}, "not trained to be told"),
        ({"prompt": "a ball", "extra_body": {"contacts": "0.4,soon"}}, "contacts: Input should be"),
    ],
)
def test_what_makes_no_sense_is_refused_at_once(running, fields, said):
    with pytest.raises(openai.BadRequestError, match=said):
        running.videos.create(**fields)


def test_another_model_and_unknown_clips_are_not_found(running):
    with pytest.raises(openai.NotFoundError, match="this server serves"):
        running.videos.create(prompt="a ball", model="sora-2")
    for path in ("video_0", "../../etc/passwd", "a" * 3000):
        with pytest.raises(openai.NotFoundError):
            running.videos.retrieve(path)
    assert running.models.list().data[0].id == ModelConfig().name


def test_faults_are_the_clips_own(running):
    refused = finished(running, running.videos.create(prompt="refuse").id)
    assert refused.status == "failed" and "the model refuses" in refused.error.message
    broken = finished(running, running.videos.create(prompt="break").id)
    assert "RuntimeError" in broken.error.message and "fault of ours" not in broken.error.message
    with pytest.raises(openai.ConflictError, match="the model refuses"):
        running.videos.download_content(refused.id)
    assert finished(running, running.videos.create(prompt="a ball").id).status == "completed"


def test_waiting_has_a_bound_and_can_be_given_up():
    model = Model()
    with served(model, most_waiting=2) as client:
        model.go.clear()
        first = client.videos.create(prompt="a ball")
        while client.videos.retrieve(first.id).status != "in_progress":
            time.sleep(0.01)
        waiting = [client.videos.create(prompt="a ball") for _ in range(2)]
        with pytest.raises(openai.RateLimitError, match="2 clips are waiting"):
            client.videos.create(prompt="a ball")
        assert client.videos.delete(first.id).deleted and client.videos.delete(waiting[0].id)
        model.go.set()
        assert finished(client, waiting[1].id).status == "completed"
        with pytest.raises(openai.NotFoundError):
            client.videos.retrieve(first.id)
        # Neither the cancelled one nor the one that waited has been made to its end.
        assert len(model.asked) == 2
        left = [folder.name for folder in client.jobs.folder.iterdir()]
        assert left == [client.jobs.get(waiting[1].id).folder.name]


def test_pictures_and_films_are_told_by_content(tmp_path):
    model = Model()
    Image.new("RGB", (40, 30), "red").save(tmp_path / "still.mp4", "png")
    film = Clip(torch.zeros(16, 3, 32, 32, dtype=torch.uint8), torch.zeros(48000))
    film.save(tmp_path / "film.mp4")
    (tmp_path / "film.mp4").rename(tmp_path / "film.png")
    (tmp_path / "list.mp4").write_text("#EXTM3U\n#EXTINF:1,\n/etc/hostname\n")
    with served(model) as client:
        for name in ("still.mp4", "film.png"):
            given = open(tmp_path / name, "rb")
            video = client.videos.create(prompt="a ball", input_reference=given)
            finished(client, video.id)
        with pytest.raises(openai.BadRequestError, match="input_reference"):
            given = open(tmp_path / "list.mp4", "rb")
            client.videos.create(prompt="a ball", input_reference=given)
        assert len(list(client.jobs.folder.iterdir())) == 2  # nothing is left of what is refused
    assert "image" in model.asked[0] and "video" in model.asked[1] and len(model.asked) == 2


def test_pictures_that_cannot_be_read_are_refused_at_once():
    pixels = struct.pack("<IiiHHIIiiII", 40, 40_000, 40_000, 1, 24, 0, 0, 0, 0, 0, 0)
    bomb = b"BM" + struct.pack("<IHHI", 100, 0, 0, 54) + pixels
    whole = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(whole, "PNG")
    with served(Model()) as client:
        for content in (bomb, whole.getvalue()[:1000]):
            with pytest.raises(openai.BadRequestError, match="cannot read the image"):
                client.videos.create(prompt="a ball", input_reference=("a.png", content))


def test_a_fault_of_ours_leaves_no_upload_behind(monkeypatch):
    def broken(*given):
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(maker.Maker, "check", broken)
    with served(Model()) as client:
        with pytest.raises(openai.InternalServerError):
            client.videos.create(prompt="a ball", input_reference=("a.png", b"content"))
        assert list(client.jobs.folder.iterdir()) == []


def test_a_hundred_requests_with_faults_among_them(running):
    def ask(number):
        kind = number % 5
        if kind == 1:
            return raw(running, "POST", "/v1/videos", b"{", {"Content-Type": "application/json"})[0]
        if kind == 2:
            return raw(running, "POST", "/v1/videos", b"\x00\xff" * 40)[0]
        if kind == 3:
            with socket.create_connection(("127.0.0.1", running.port)) as half:
                half.sendall(b"POST /v1/videos HTTP/1.1\r\nHost: localhost\r\n")
                half.sendall(b"Content-Length: 99\r\n\r\n{")
            return 0
        try:
            return running.videos.create(prompt="a ball" if kind else "refuse").id
        except openai.RateLimitError:
            return 429

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(ask, range(100)))
    ids = [answer for answer in answers if isinstance(answer, str)]
    assert set(answers) - set(ids) <= {0, 400, 429} and ids
    assert all(finished(running, id).status in ("completed", "failed") for id in ids)
    text = raw(running, "GET", "/metrics")[1].decode()
    assert 'syncflow_requests_total{code="400"}' in text and "syncflow_jobs_queued 0.0" in text


def test_deep_json_is_refused(running):
    headers = {"Content-Type": "application/json"}
    status, told = raw(running, "POST", "/v1/videos", b"[" * 100_000, headers)
    assert status == 400 and b"not JSON" in told


def test_large_bodies_are_cut_off():
    with served(Model(), most_bytes=10_000) as client:
        with pytest.raises(openai.APIStatusError) as refused:
            client.videos.create(prompt="a ball", input_reference=io.BytesIO(b"x" * 50_000))
        assert refused.value.status_code == 413
        # Without a length, in pieces.
        pieces = iter([b"x" * 5000] * 4)
        headers = {"Content-Type": "application/json"}
        assert raw(client, "POST", "/v1/videos", pieces, headers)[0] == 413
        assert list(client.jobs.folder.iterdir()) == []


def test_other_names_other_sites_and_wrong_keys_are_refused():
    with served(Model(), api_key="secret") as client:
        with pytest.raises(openai.AuthenticationError):
            client.videos.create(prompt="a ball")
        knowing = client.with_options(api_key="secret")
        assert knowing.videos.create(prompt="a ball").status == "queued"
        assert raw(client, "GET", "/health")[0] == 200
        assert raw(client, "GET", "/health", headers={"Host": "evil.example"})[0] == 403
        assert raw(client, "GET", "/health", headers={"Origin": "http://evil.example"})[0] == 403


def test_old_clips_are_forgotten(tmp_path):
    def make(job):
        (job.folder / "clip").touch()
        return job.folder / "clip"

    jobs = Jobs(make, most_waiting=1, kept_seconds=0.2)
    job = jobs.add({}, jobs.room())
    while job.completed is None:
        time.sleep(0.01)
    assert jobs.get(job.id) is job
    time.sleep(0.3)
    assert jobs.get(job.id) is None and not job.folder.exists()
    jobs.close()
    with pytest.raises(Full):
        jobs.room()


def test_listing_goes_on_after_an_id():
    with served(Model()) as client:
        made = [client.videos.create(prompt=f"a ball {i}").id for i in range(5)]
        found = client.videos.list(limit=2, order="asc")
        assert [video.id for video in found.data] == made[:2] and found.has_more
        assert [video.id for video in client.videos.list(limit=2, order="asc")] == made
        assert [video.id for video in client.videos.list()] == made[::-1]


def test_the_command_makes_a_clip_and_ends_with_the_signal(tmp_path):
    """The shipped model, a process of its own, SIGTERM while a clip waits: nothing is left."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "syncflow", "serve", "--port", str(port)]
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    environment.pop("SYNCFLOW_API_KEY", None)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert f":{port}/v1" in process.stdout.readline()
            base = f"http://127.0.0.1:{port}/v1"
            client = openai.OpenAI(api_key="none", base_url=base, max_retries=5)
            few = {"steps": 1}
            video = client.videos.create(prompt="a metal ball bounces twice", extra_body=few)
            assert finished(client, video.id, 100).status == "completed"
            client.videos.download_content(video.id).write_to_file(tmp_path / "clip.mp4")
            clip = Clip.load(tmp_path / "clip.mp4")
            assert len(clip.video) == 32 and len(clip.audio) == 96000
            client.videos.create(prompt="a metal ball bounces twice")
            process.send_signal(signal.SIGTERM)
            process.wait(30)
        finally:
            process.kill()
    assert not list(tmp_path.glob("syncflow-serve-*"))
