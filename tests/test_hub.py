"""To the hub and back: huggingface_hub's own client against a small hub on the loopback."""

import base64
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import pytest

from syncflow.model_io import hub

COMMIT = "c" * 40


class FakeHub:
    """Repositories in memory. ``cuts`` breaks the connection once, so many bytes into a file."""

    def __init__(self):
        self.files: dict[str, dict[str, bytes]] = {}
        self.asked: list[tuple[str, str | None]] = []
        self.cuts: dict[str, int] = {}
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *args):
                pass

            def do_HEAD(self):
                self.do_GET(head=True)

            def do_GET(self, head=False):
                path = unquote(urlsplit(self.path).path)
                if path.startswith("/api/models/"):
                    return self.listing(path.removeprefix("/api/models/"))
                repo, _, rest = path[1:].partition("/resolve/")
                _, _, name = rest.partition("/")
                data = fake.files.get(repo, {}).get(name)
                if data is None:
                    return self.reply(404, b"", {"X-Error-Code": "EntryNotFound"})
                wanted = self.headers.get("Range")
                if not head:
                    fake.asked.append((name, wanted))
                start = int(wanted.split("=")[1].split("-")[0]) if wanted else 0
                headers = {
                    "ETag": f'"{hashlib.sha256(data).hexdigest()}"',
                    "X-Repo-Commit": COMMIT,
                    "Accept-Ranges": "bytes",
                }
                if wanted:
                    headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
                cut = None if head else fake.cuts.pop(name, None)
                self.reply(206 if wanted else 200, data[start:], headers, cut, head)

            def listing(self, path):
                repo, kind, _ = path.partition("/revision/")
                if not kind:
                    repo, kind, _ = path.partition("/tree/")
                if repo not in fake.files:
                    return self.reply(404, b"{}", {"X-Error-Code": "RepoNotFound"})
                files = fake.files[repo]
                answer = {
                    "id": repo,
                    "sha": COMMIT,
                    "private": False,
                    "downloads": 0,
                    "likes": 0,
                    "tags": [],
                    "siblings": [{"rfilename": name} for name in files],
                }
                if "/tree/" in path:
                    answer = [
                        {"type": "file", "path": name, "size": len(data), "oid": "0" * 40}
                        for name, data in files.items()
                    ]
                self.reply(200, json.dumps(answer).encode())

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                path = urlsplit(self.path).path
                if path == "/api/repos/create":
                    sent = json.loads(body)
                    repo = f"{sent.get('organization') or 'me'}/{sent['name']}"
                    fake.files.setdefault(repo, {})
                    answer = {"url": f"{fake.url}/{repo}", "name": repo}
                elif path == "/api/validate-yaml":
                    answer = {"errors": [], "warnings": []}
                elif "/preupload/" in path:
                    answer = {"files": [
                        {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False}
                        for f in json.loads(body)["files"]
                    ]}  # fmt: skip
                else:
                    repo = path.removeprefix("/api/models/").partition("/commit/")[0]
                    for line in map(json.loads, body.splitlines()):
                        if line["key"] == "file":
                            value = line["value"]
                            fake.files[repo][value["path"]] = base64.b64decode(value["content"])
                    answer = {"commitUrl": f"{fake.url}/{repo}/commit/{COMMIT}", "success": True,
                              "commitOid": COMMIT, "hookOutput": ""}  # fmt: skip
                self.reply(200, json.dumps(answer).encode())

            def reply(self, status, body, headers=None, cut=None, head=False):
                self.send_response(status)
                for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if not head:
                    self.wfile.write(body if cut is None else body[:cut])
                if cut is not None:
                    self.wfile.flush()
                    self.connection.close()
                    self.close_connection = True

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def fake_hub(monkeypatch, tmp_path):
    from huggingface_hub import constants

    fake = FakeHub()
    old = constants.ENDPOINT
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(old, fake.url)
    monkeypatch.setattr(constants, "ENDPOINT", fake.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1 << 16)
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    yield fake
    fake.server.shutdown()
    fake.server.server_close()


def test_a_transfer_that_breaks_off_goes_on_where_it_was(fake_hub):
    data = bytes(range(256)) * 40_000
    fake_hub.files["a/b"] = {"model.safetensors": data, "config.json": b"{}"}
    fake_hub.cuts["model.safetensors"] = 3_000_000
    folder = hub.fetch("a/b")
    assert (folder / "model.safetensors").read_bytes() == data and folder.name == COMMIT
    ranges = [wanted for name, wanted in fake_hub.asked if name == "model.safetensors"]
    assert len(ranges) == 2 and ranges[0] is None
    assert 0 < int(ranges[1].split("=")[1].split("-")[0]) <= 3_000_000


def test_what_was_fetched_is_not_fetched_again_and_serves_offline(fake_hub, monkeypatch):
    fake_hub.files["a/b"] = {"config.json": b"{}", "model.safetensors": b"x" * 100}
    first = hub.fetch("a/b")
    fake_hub.asked.clear()
    assert hub.fetch("a/b") == first and not fake_hub.asked
    fake_hub.server.shutdown()
    fake_hub.server.server_close()
    assert hub.fetch("a/b") == first


def test_code_and_pickles_stay_where_they_are(fake_hub):
    data = dict.fromkeys(["config.json", "run.py", "model.bin", "model.pt", "a.safetensors"], b"{}")
    fake_hub.files["a/b"] = data
    folder = hub.fetch("a/b")
    assert {p.name for p in folder.iterdir()} == {"config.json", "a.safetensors"}
    asked = hub.fetch("a/b", patterns=(*hub.DATA, *hub.PICKLES))
    assert {p.name for p in asked.iterdir()} == set(data) - {"run.py"}


def test_what_the_hub_does_not_have_is_one_line(fake_hub):
    with pytest.raises(OSError, match="unknown tower 'no/body'") as error:
        hub.fetch("no/body", what="tower")
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="not a hub id"):
        hub.upload("x", "noslash")


def test_a_model_goes_up_and_comes_back(fake_hub, published_model, tmp_path):
    import syncflow

    model = syncflow.load(published_model, device="cpu")
    assert model.push_to_hub("me/mini", token="hf_test").startswith(fake_hub.url)
    sent = fake_hub.files["me/mini"]
    assert {"config.json", "README.md", "ddit.safetensors"} <= set(sent)
    again = syncflow.load("me/mini", revision=COMMIT, device="cpu")
    ours, theirs = model.ddit.state_dict(), again.ddit.state_dict()
    assert all(ours[key].equal(theirs[key]) for key in ours)
    again.save(tmp_path / "saved")
    saved = {str(p.relative_to(tmp_path / "saved")) for p in (tmp_path / "saved").rglob("*.*")}
    assert saved == set(sent)


@pytest.fixture
def published_model(tmp_path):
    """A tiny model folder with a T5 inside."""
    from transformers import ByT5Tokenizer, T5Config, T5EncoderModel

    from syncflow.config import ModelConfig
    from syncflow.model_io import model_folder
    from syncflow.models.ddit import DDiT
    from syncflow.models.vae import build_audio_vae, build_video_vae

    config = ModelConfig.parse(
        {
            "name": "mini",
            "ddit": {
                "video": {"hidden_size": 16, "depth": 1, "num_heads": 2, "in_channels": 2,
                          "caption_channels": 16, "model_max_length": 8},
                "adaptor": {"num_heads": 2},
                "audio": {"hidden_size": 16, "num_heads": 2, "in_channels": 3},
            },
            "video_vae": {"kind": "patch", "latent_channels": 2, "width": 8, "depth": 1},
            "audio_vae": {"kind": "spectral", "latent_channels": 3, "width": 16, "depth": 1,
                          "oscillators": 8},
            "text_encoder": {"name_or_path": "text_encoder", "d_model": 16},
        }
    )  # fmt: skip
    parts = {
        "ddit": DDiT(config.ddit),
        "video_vae": build_video_vae(config.video_vae),
        "audio_vae": build_audio_vae(config.audio_vae),
        "text_encoder": None,
    }
    folder = model_folder.save(tmp_path / "mini", config, parts)
    sizes = dict(d_model=16, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
    T5EncoderModel(T5Config(vocab_size=384, **sizes)).save_pretrained(folder / "text_encoder")
    ByT5Tokenizer().save_pretrained(folder / "text_encoder")
    return folder
