"""The paper's settings end to end, on clips whose faults are known."""

import json
from html.parser import HTMLParser
from pathlib import Path

import pytest
import stand_ins
import torch

from syncflow import cli
from syncflow.clip import Clip
from syncflow.data import media
from syncflow.evaluation.metrics.metric import Mean, Metric, Result
from syncflow.evaluation.report.table import cell
from syncflow.evaluation.suites import datasets, paper, paper_shares, paper_systems
from syncflow.evaluation.suites.paper import Networks


class Model:
    """Answers with the real clips, the sound ``noise`` worse; refuses every size but its own."""

    name = "stand-in"

    def __init__(self, reals, noise=0.0):
        self.reals, self.noise, self.calls = reals, noise, []

    def generate(self, prompts, *, seed, progress, video=None, height=None, width=None, **options):
        if height not in (None, 64):
            raise ValueError(f"this model's size is fixed to 64x64, got {height}x{width}")
        self.calls.append(options | {"video": video is not None})
        made = []
        for index, prompt in enumerate(prompts):
            real = self.reals[prompt]
            generator = torch.Generator().manual_seed(seed + index)
            noise = self.noise * torch.randn(len(real.audio), generator=generator)
            picture = real.video if video is None else video[index].video
            made.append(Clip(picture, (real.audio + noise).clamp(-1, 1)))
        return made


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """A folder of six clips with captions, and the clips by caption."""
    folder, reals, lines = tmp_path_factory.mktemp("films"), {}, []
    for index in range(6):
        t = torch.arange(96000) / 48000
        audio = 0.3 * torch.sin(2 * torch.pi * (200 + 100 * index) * t) * torch.exp(-2 * t)
        video = torch.full((32, 3, 64, 64), 30 * index, dtype=torch.uint8)
        video[:, :, :8, : 8 + 8 * index] = 255
        media.write(folder / f"clip{index}.mp4", video, audio)
        caption = f"bell {index}"
        lines.append(json.dumps({"file": f"clip{index}.mp4", "caption": caption}))
        reals[caption] = Clip(video, audio, prompt=caption)
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n")
    return folder, reals


def networks(folder):
    return Networks(
        vggish=str(stand_ins.vggish(folder)), vggish_head=str(stand_ins.head(folder)),
        i3d=str(folder / "nothing.pt"),
    )  # fmt: skip


def test_every_setting_in_one_report(films, tmp_path):
    folder, reals = films
    runs = tmp_path / "run"
    runs.mkdir()
    lines = [{"step": 10, "loss": 1.0}, {"step": 20, "val_audio_clean": 0.5, "val_video": 1.0},
             {"step": 30, "val_audio_clean": 0.25, "val_audio_clean_se": 0.025}]  # fmt: skip
    (runs / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (tmp_path / "cascades").mkdir()
    for index in range(6):
        media.write_wav(tmp_path / "cascades" / f"clip{index}.wav", torch.rand(100000) - 0.5)
    model = Model(reals, noise=1e-3)
    report = paper.run(
        model, folder, tmp_path / "out", clips=4, sizes=(64, 128), guidances=(2.0, 1.0), batch=3,
        cascades={"T2V + noise": (str(folder), str(tmp_path / "cascades"))},
        training={"with adaptor": runs}, networks=networks(tmp_path), progress=False,
    )  # fmt: skip
    rows = {row["system"]: row for row in report["rows"]}
    assert list(rows) == [
        "real clips", "text to audio and video", "at 64x64", "at 128x128", "video to audio, paper",
        "video to audio, one-pass", "guidance 2", "guidance 1", "T2V + noise",
    ]  # fmt: skip
    # Worse sounds score worse, and only the sounds differ.
    for name in ("FAD", "KL"):
        real, model_, noise = (
            rows[key]["metrics"][name]["value"][0]
            for key in ("real clips", "text to audio and video", "T2V + noise")
        )
        assert real <= model_ < noise
    assert rows["at 128x128"]["not_run"].endswith("got 128x128")
    assert [call.get("v2a") for call in model.calls if call["video"]] == [
        "paper", "paper", "one-pass", "one-pass"
    ]  # fmt: skip
    assert model.calls[-1]["guidance"] == 1.0
    absent = rows["real clips"]["metrics_not_run"]
    assert absent["CLAP"] == "not run: needs a CLAP model (laion/clap-htsat-unfused)"
    assert "nothing.pt" in absent["FVD"]
    assert absent["DeSync"] == "not run: needs Synchformer (synchformer.pt, TorchScript)"
    page = (tmp_path / "out" / "report.md").read_text()
    for text in (
        "| paper: SyncFlow-VGG |  | - | 2.530 | - | 0.182 |", "| 20 | 0.500 |",
        "| 30 | 0.250 [0.201, 0.299] |", "16000 Hz",
        "| paper: SyncFlow, zero-shot |  | - | - | 0.210 |", "3.690",
    ):  # fmt: skip
        assert text in page, text
    html = (tmp_path / "out" / "index.html").read_text()
    HTMLParser().feed(html)
    losses = html.split("Figure 6: validation loss")[1]
    assert losses.count("<circle") == 2 and "20: 0.500" in losses and "[0.201, 0.299]" in losses
    guidance = html.split("Figure 5: guidance")[1].split("<h2>")[0]
    fad = guidance.split('aria-label="FAD"')[1].split("</figure>")[0]
    assert [x.split(":")[0] for x in fad.split("<title>")[1:]] == ["1", "2"], "in order of weight"
    assert "needs a CLAP model" in html and "2.530" in html and "src=" not in html
    saved = json.loads((tmp_path / "out" / "report.json").read_text())
    assert saved["rows"][0]["metrics"]["FAD"]["facts"]["sample_rate"].startswith("16000")


def test_cascades(films, tmp_path):
    folder, reals = films
    items = datasets.folder(folder, 2)
    truth = [item.real(64, 64) for item in items]
    seen = []

    def sound(video, prompt, *, fps, sample_rate, seed):
        seen.append((tuple(video.shape), prompt, fps, sample_rate, seed))
        return torch.ones(120000) * 0.1

    made = paper_systems.cascade(folder, sound)(items, truth, 5)
    assert seen == [((32, 3, 64, 64), f"bell {i}", 16, 48000, 5 + i) for i in range(2)]
    assert [len(clip.audio) for clip in made] == [96000, 96000]
    with pytest.raises(ValueError, match="at least 96000"):
        short = paper_systems.cascade(folder, lambda *a, **k: torch.zeros(10))
        short(items, truth, 0)
    with pytest.raises(FileNotFoundError, match="clip0"):
        paper_systems.cascade(tmp_path, sound)(items, truth, 0)
    assert paper_systems.find_sound("math:sqrt")(4) == 2
    for bad in ("math", "math:nothing", "no_such_module_here:f", "math:pi"):
        with pytest.raises(ValueError):
            paper_systems.find_sound(bad)


def test_the_last_three_checkpoints_are_averaged(tmp_path):
    for step in (100, 200, 300, 400):
        (tmp_path / f"step{step}").mkdir()
        (tmp_path / f"step{step}" / "config.json").write_text("{}")
    names = [path.name for path in paper_systems.checkpoints(tmp_path)]
    assert names == ["step200", "step300", "step400"]
    single = tmp_path / "step100"
    assert paper_systems.checkpoints(single) == [single]
    parts = [{"FAD": {"value": [v, v - 1, v + 1], "better": "lower"}} for v in (1.0, 2.0, 6.0)]
    assert paper.averaged(parts) == {"FAD": {"value": [3, 2, 4], "better": "lower"}}
    # A metric that one of them lacks would be an average of other clips.
    assert paper.averaged([*parts, {}]) == {}


def test_data_folders(films, tmp_path):
    folder, _ = films
    items = datasets.folder(folder)
    assert [item.key for item in items] == [f"clip{i}" for i in range(6)]
    clip = items[1].real(32, 48)
    assert clip.video.shape == (32, 3, 32, 48) and clip.sample_rate == 48000
    (tmp_path / "a.mp4").write_bytes((folder / "clip0.mp4").read_bytes())
    with pytest.raises(FileNotFoundError, match="no caption"):
        datasets.folder(tmp_path)
    (tmp_path / "a.txt").write_text("a bell\n")
    assert datasets.folder(tmp_path)[0].prompt == "a bell"
    (tmp_path / "metadata.jsonl").write_text('{"file": "../../secret.mp4", "caption": "x"}\n')
    with pytest.raises(ValueError, match="outside"):
        datasets.folder(tmp_path)
    (tmp_path / "metadata.jsonl").write_text("[]\n")
    with pytest.raises(ValueError, match="line 1"):
        datasets.folder(tmp_path)


def test_a_hash_change_is_seen(films, tmp_path):
    """The report's facts tell two weights files of the same name apart."""
    from syncflow.evaluation.metrics.networks import loading

    first = loading.digest(stand_ins.vggish(tmp_path))
    (tmp_path / "vggish.pth").write_bytes(b"x")
    assert loading.digest(tmp_path / "vggish.pth") != first


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--tables", "7"], "--tables takes"),
        (["--ablation", "x"], "--ablation takes NAME=VALUE"),
        (["--cascade", "x=only"], "--cascade takes NAME=VIDEOS,SOUNDS"),
        (["--sizes", "big"], "--sizes takes numbers"),
        (["--networks", "no.json"], "no.json"),
        (["--training", "x=nowhere"], "no training log"),
        (["--ablation", "x=nowhere"], "neither a model folder nor a training run"),
    ],
)
def test_mistakes_are_one_line(arguments, message, capsys):
    assert cli.main(["evaluate", "paper", *arguments]) == 2
    error = capsys.readouterr().err.strip()
    assert message in error and "\n" not in error


def test_each_ablation_removes_one_thing():
    """Everything else is the same, and each starts from the shipped video tower alone."""
    folder = Path(__file__).parents[2] / "configs/impacts/ablations"
    full = json.loads((folder / "full.json").read_text())
    changes = {
        "no_adaptor": ("adaptor", "axis", "none"),
        "no_aligned_path": ("audio", "upsampler_patches", 0),
        "text_to_audio": ("audio", "condition", "text"),
    }
    for name, (part, key, value) in changes.items():
        other = json.loads((folder / f"{name}.json").read_text())
        assert other["model"][part].pop(key) == value != full["model"][part][key]
        other["model"][part][key] = full["model"][part][key]
        assert other.pop("out").endswith(name)
        assert other | {"out": full["out"]} == full
    neither = json.loads((folder / "neither.json").read_text())
    plain = json.loads((folder / "no_aligned_path.json").read_text())
    assert neither["model"].pop("adaptor") == {**plain["model"].pop("adaptor"), "axis": "none"}
    assert neither.pop("out").endswith("neither") and plain.pop("out") and neither == plain
    mixed = json.loads((folder / "mixed.json").read_text())
    assert mixed.pop("clean_video") == 0.5 and mixed.pop("out").endswith("mixed")
    assert mixed | {"out": full["out"]} == full and "clean_video" not in full
    assert full["init_video"] == "syncflow/pretrained" and "init" not in full
    steps = json.loads((folder / "recipe.json").read_text())["steps"]
    assert all((folder / step).is_file() for step in steps)


def test_only_the_tables_that_are_asked_for():
    rows = paper.settings_of(None, (), (2.0,), ("1", "5"))
    assert [row.name for row in rows] == ["real clips", "text to audio and video", "guidance 2"]
    assert [row.tables for row in rows] == [("1",), ("1",), ("5",)]


def test_cells():
    assert cell(None).markdown() == "-" and cell(0.182).markdown() == "0.182"
    assert cell([0.0031, 0.001, 0.005]).markdown() == "0.0031 [0.001, 0.005]"
    assert cell([123.456, 120, 130]).markdown() == "123.5 [120.0, 130.0]"


def test_a_training_run_is_its_last_three_checkpoints(tmp_path, monkeypatch):
    from types import SimpleNamespace

    from syncflow.commands.evaluate import paper as command
    from syncflow.training.checkpoints import checkpoint
    from syncflow.training.tasks import export

    saved = [tmp_path / f"{step:08d}" for step in (400, 300, 200, 100)]  # newest first
    monkeypatch.setattr(checkpoint, "folders", lambda folder: saved)
    monkeypatch.setattr(export, "flow_config", lambda folder: SimpleNamespace(data="latents"))
    tasks = []
    monkeypatch.setattr(export, "export", tasks.append)
    assert command._model(tmp_path, None, tmp_path / "out") == tmp_path / "out"
    assert [Path(task.ddit).name for task in tasks] == ["00000400", "00000300", "00000200"]
    assert all(Path(task.out).parent == tmp_path / "out" for task in tasks)


def test_a_damaged_film_and_a_sound_that_is_none_cost_themselves_alone(films, tmp_path):
    """One of them removed every row, the other some metrics and not others."""
    import shutil

    folder, reals = films
    shutil.copytree(folder, tmp_path / "films")
    (tmp_path / "films" / "clip1.mp4").write_bytes(b"no film")

    class Spoilt(Model):
        def generate(self, prompts, **options):
            made = super().generate(prompts, **options)
            for prompt, clip in zip(prompts, made, strict=True):
                if prompt == "bell 4":
                    clip.audio[7] = float("nan")
            return made

    report = paper.run(
        Spoilt(reals), tmp_path / "films", tmp_path / "out", clips=6, sizes=(), guidances=(),
        wanted=("1",), networks=networks(tmp_path), batch=2, progress=False,
    )  # fmt: skip
    real, model = report["rows"]
    assert list(real["left_out"]) == ["clip1"] and list(model["left_out"]) == ["clip1", "clip4"]
    assert (real["clips"], model["clips"]) == (5, 4)
    for row in (real, model):
        assert {"FAD", "KL"} <= row["metrics"].keys()
        assert {metric["clips"] for metric in row["metrics"].values()} == {row["clips"]}
    page = (tmp_path / "out" / "report.md").read_text()
    assert "left out of all metrics, clip4: the system's sound has values that are not fin" in page


def test_shares_make_the_clips_and_the_last_measures_them_as_one_process_does(
    films, tmp_path, monkeypatch
):
    """Killed in the middle, a share makes what is missing and nothing again."""
    folder, reals = films

    class Loudness(Metric):
        def __init__(self):
            self.mean = Mean()

        def update(self, pairs):
            for pair in pairs:
                assert pair.real.video.shape[2:] == pair.generated.video.shape[2:]
                self.mean.add(pair.generated.audio.abs().mean().item())

        def results(self):
            return [Result("loudness", self.mean.value(), "higher", self.mean.count)]

    monkeypatch.setattr(paper, "factories", lambda *_: [("loudness", {}, Loudness)])

    class Counting(Model):
        def generate(self, prompts, **options):
            if len(self.calls) == self.dies_at:
                raise KeyboardInterrupt
            return super().generate(prompts, **options)

        dies_at = -1

    def measured(out, model, **options):
        return paper.run(
            model, folder, tmp_path / out, clips=6, sizes=(128,), guidances=(), batch=2,
            wanted=("1", "3"), progress=False, **options,
        )  # fmt: skip

    one = measured("one", Model(reals, noise=1e-3))
    first, second, again = (Counting(reals, noise=1e-3) for _ in range(3))
    assert measured("shared", first, share=(0, 2)) is None and len(first.calls) == 6
    second.dies_at = 2
    with pytest.raises(KeyboardInterrupt):
        measured("shared", second, share=(1, 2))
    clips = tmp_path / "shared" / paper_shares.FOLDER
    with pytest.raises(ValueError, match="made with another seed: 0, now 5; delete it"):
        measured("shared", Model(reals), share=(0, 2), seed=5)
    report = measured("shared", again, share=(1, 2))
    assert len(second.calls) + len(again.calls) == 3 and not clips.exists()
    ours, theirs = (
        [{k: v for k, v in row.items() if k != "seconds a clip"} for row in found["rows"]]
        for found in (report, one)
    )
    assert ours == theirs and "got 128x128" in ours[2]["not_run"]
    assert ours[1]["metrics"]["loudness"]["clips"] == 6
    late = Counting(reals, noise=1e-3)  # started again after all was done
    assert measured("shared", late, share=(0, 2))["rows"] == report["rows"] and not late.calls
