"""What is shown of a clip while it is drawn, the map that it is shown with, and giving up."""

import json
import math
import sys
import types

import pytest
import torch

import syncflow
from benchmarks.evidence import ROOT
from syncflow.clip import Clip
from syncflow.evaluation import previews as suite
from syncflow.generation.remarks.preview import in_notebook
from syncflow.model_io import fingerprint, preview_map, tensors
from syncflow.models.preview_map import Fit, PreviewMap, loudness
from tests.small_model import PROMPT, build, picture, run, same

SHIPPED = ROOT / "syncflow" / "pretrained"


@pytest.fixture(scope="module")
def model():
    made = build()
    torch.manual_seed(0)
    made.previews = PreviewMap(torch.rand(9 * 4 + 1, 768) * 0.1, torch.rand(3 * 6 + 1, 2) * 0.1)
    return made


def test_a_linear_decoder_is_found():
    """Where a picture is a linear map of its latents the fit is that map, and so for loudness."""
    torch.manual_seed(0)
    true = PreviewMap(torch.randn(9 * 2 + 1, 768) * 0.02 + 0.02, torch.rand(3 * 3 + 1, 2) * 0.05)
    true.picture[-1] += 0.4
    true.sound[-1] += 0.4
    fit, seen, heard = Fit(), torch.randn(4, 2, 3, 8, 8), torch.randn(4, 40, 3) * 0.5
    frames = true.video(seen, 12)
    # A sound with the loudness of the true envelope: every stretch of 480 samples is one number.
    samples = true.envelope(heard).repeat_interleave(480, 1)
    fit.add_video(seen, frames)
    fit.add_audio(heard, samples)
    found = fit.solved()
    assert found.channels == (2, 3)
    assert (found.video(seen, 12).int() - frames.int()).abs().float().mean() < 2
    torch.testing.assert_close(found.envelope(heard), loudness(samples), atol=0.02, rtol=0.05)
    with pytest.raises(ValueError, match="fitted to clips, got none"):
        Fit().solved()


def test_places_stay_where_they_are():
    """A map of the middle latent alone moves nothing: blocks of pixels lie where their latent is,
    frames in their order, channels too."""
    weight = torch.zeros(9 + 1, 4, 3, 8, 8)
    weight[4] = torch.linspace(0, 0.5, 4 * 3 * 64).view(4, 3, 8, 8)
    shown = PreviewMap(weight.flatten(1), torch.zeros(3 + 1, 2))
    latent = torch.zeros(1, 1, 2, 4, 5)
    latent[0, 0, 1, 2, 3] = 1
    video = shown.video(latent, 7)
    assert video.shape == (1, 7, 3, 32, 40)
    expected = torch.zeros(7, 3, 32, 40)
    expected[4:, :, 16:24, 24:32] = 255 * weight[4, :3]
    assert (video[0].float() - expected).abs().max() <= 0.51


def test_previews_come_at_their_steps_and_change_nothing(model):
    got, told = [], []
    asked = {"steps": 6, "audio_steps": 4, "seed": 3}
    asked_too = {"preview": got.append, "callback": lambda *of: told.append(of)}
    clip = run(model, preview_every=4, **asked_too, **asked)
    assert same(clip, run(model, **asked))
    assert [one.step for one in got] == [4, 8, 10] and {one.steps for one in got} == {10}
    # In a cascade the sound begins when the picture is finished.
    assert [one.envelope is None for one in got] == [True, False, False]
    first, second, last = got
    assert first.video.shape == (1, 16, 3, 32, 32) and first.video.dtype == torch.uint8
    assert last.envelope.shape == (1, 100) and last.rate == 100 and last.fps == 16
    # Of a picture that is finished, and of the last step, the state itself is shown.
    assert torch.equal(second.latents[0], told[-1][1][0]) and second.video is last.video
    assert torch.equal(last.latents[1], told[-1][1][1])
    decoded = model.codecs.decode_video(last.latents[0][0], model.config.geometry.spec)
    assert torch.equal(decoded, clip.video)


def test_a_preview_shows_where_the_state_is_heading(model):
    """Along a straight line through the last two states, to t = 1."""
    got, states = [], []
    run(
        model,
        steps=4,
        schedule="joint",
        preview=got.append,
        preview_every=1,
        callback=lambda step, x, t: states.append((x, t)),
    )
    assert len(got) == 4 and all(one.envelope is not None for one in got)
    for one, (before, t_before), (after, t_after) in zip(got[1:], states, states[1:], strict=False):
        for part in (0, 1):
            slope = (after[part] - before[part]) / (t_after[part] - t_before[part])
            there = after[part] + (1 - t_after[part]) * slope
            torch.testing.assert_close(one.latents[part], there, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("solver", ["heun", "midpoint", "ab2", "2m"])
def test_every_solver_can_be_watched(model, solver):
    got = []
    run(model, steps=2, solver=solver, eta=0, preview=got.append, preview_every=1)
    assert [one.step for one in got] == [1, 2, 3, 4]
    assert all(one.latents[0].isfinite().all() for one in got)


def test_given_pictures_takes_and_candidates_are_shown(model):
    got = []
    clips = run(model, [PROMPT] * 2, steps=2, audio_takes=3, preview=got.append, preview_every=1)
    assert len(clips) == 6
    assert got[-1].video.shape[0] == 2 and got[-1].envelope.shape[0] == 6
    got.clear()
    given = picture()
    run(model, video=given, steps=2, preview=got.append, preview_every=1)
    assert got and all(one.envelope is not None for one in got)
    got.clear()
    run(model, steps=2, candidates=2, preview=got.append, preview_every=100)
    assert len(got) in (1, 2)
    got.clear()
    old = Clip(given, torch.zeros(48000))
    run(model, retake=old, span=(0.2, 0.6), steps=2, preview=got.append, preview_every=1)
    run(model, extend=old, steps=2, preview=got.append, preview_every=1)
    assert len(got) == 2 + 4 and got[-1].video.shape == (1, 16, 3, 32, 32)


def test_a_picture_of_a_preview(model):
    got = []
    run(model, steps=1, preview=got.append)
    image = got[-1].image()
    assert image.size == (8 * 96, 96 + 4 + 48) and len(image.getcolors(10**6)) > 5
    assert got[-1]._repr_png_().startswith(b"\x89PNG")


def test_a_notebook_shows_each_in_the_place_of_the_one_before(model, monkeypatch):
    shown = []

    class Handle:
        def update(self, what):
            shown.append(("update", what.step))

    def display(what, display_id):
        shown.append(("display", what.step, display_id))
        return Handle()

    inside = types.ModuleType("IPython.display")
    inside.display = display
    monkeypatch.setitem(sys.modules, "IPython", types.ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", inside)
    run(model, steps=2, preview=in_notebook(), preview_every=2)
    assert shown == [("display", 2, True), ("update", 4)]


@pytest.mark.parametrize("how", ["callback", "preview"])
def test_giving_up_leaves_the_model_as_it_was(model, how):
    before = run(model, steps=2, seed=1)

    def stop(*_):
        raise syncflow.Cancelled

    with pytest.raises(syncflow.Cancelled):
        run(model, steps=50, seed=1, **{how: stop})
    assert same(run(model, steps=2, seed=1), before)


def test_what_makes_no_sense_is_refused(model):
    for every in (0, -1, 1.5, True, None, "5"):
        with pytest.raises(ValueError, match="preview_every must be a whole number"):
            run(model, preview=print, preview_every=every)
    with pytest.raises(ValueError, match="preview is a function"):
        run(model, preview=True)
    bare = build()
    with pytest.raises(ValueError, match="no preview map"):
        run(bare, preview=print)
    bare.previews = PreviewMap(torch.zeros(10, 768), torch.zeros(4, 2))
    with pytest.raises(ValueError, match="with 1 and 1 channels, the model's have 4 and 6"):
        run(bare, preview=print)


def test_maps_are_saved_with_a_model_and_refused_beside_other_vaes(model, tmp_path):
    folder = model.save(tmp_path / "model")
    loaded = syncflow.load(folder)
    got = []
    run(loaded, steps=2, preview=got.append)
    assert got[-1].video.shape == (1, 16, 3, 32, 32)
    (folder / fingerprint.PREVIEW).rename(tmp_path / "away")
    hashed = fingerprint.of(folder)
    with pytest.raises(ValueError, match="has no preview map .* fits one"):
        preview_map.load(folder)
    (tmp_path / "away").rename(folder / fingerprint.PREVIEW)
    assert fingerprint.of(folder) == hashed  # it makes nothing
    assert len(fingerprint.weights(folder)) == 4
    build(seed=1).save(tmp_path / "other")
    (tmp_path / "other" / "video_vae.safetensors").replace(folder / "video_vae.safetensors")
    with pytest.raises(ValueError, match="fitted to other VAEs"):
        preview_map.load(folder)


def test_the_shipped_map_is_of_the_shipped_vaes():
    """After the VAEs change: syncflow evaluate preview --model syncflow/pretrained --write."""
    assert preview_map.load(SHIPPED).channels == (8, 32)


@pytest.mark.parametrize("shapes", [([37, 767], [19, 2]), ([37, 768], [18, 2]), ([1, 768], [19])])
def test_maps_of_other_shapes_are_refused(model, tmp_path, shapes):
    folder = model.save(tmp_path / "model")
    path = folder / fingerprint.PREVIEW
    weights = {name: torch.zeros(s) for name, s in zip(("picture", "sound"), shapes, strict=True)}
    tensors.save(path, weights, tensors.about(path))
    said = r"preview.safetensors': (picture|sound) of a preview map must be \[.*, got \[.* fits one"
    with pytest.raises(ValueError, match=said):
        preview_map.load(folder)


def test_a_folder_in_a_maps_place_is_refused(model, tmp_path):
    folder = model.save(tmp_path / "model")
    (folder / fingerprint.PREVIEW).unlink()
    (folder / fingerprint.PREVIEW).mkdir()
    with pytest.raises(ValueError, match="preview.safetensors' is no preview map but a folder"):
        preview_map.load(folder)
    with pytest.raises(IsADirectoryError, match="cannot write"):
        suite.run(folder, 1, 1, out=tmp_path / "out", write=True, progress=False)


def test_what_was_measured_stays_where_the_map_cannot_be_written(tmp_path, monkeypatch):
    folder = build().save(tmp_path / "model")

    def full(*_):
        raise OSError("no space left")

    monkeypatch.setattr(preview_map, "save", full)
    with pytest.raises(OSError, match="no space left"):
        suite.run(folder, 1, 2, out=tmp_path / "out", write=True, progress=False)
    report = json.loads((tmp_path / "out" / "preview.json").read_text())
    assert report["rows"] and "written" not in report
    assert (tmp_path / "out" / "preview.md").exists()


def test_a_preview_of_the_shipped_model_is_like_its_clip():
    got = []
    shipped = syncflow.load()
    clip = run(shipped, "a red metal ball bounces twice on wood", steps=10, preview=got.append)
    assert suite.likeness(got[-1].video[0], clip.video) > 0.85
    assert suite.likeness(got[-1].envelope, loudness(clip.audio[None])) > 0.85


def test_a_map_is_fitted_measured_and_written(tmp_path):
    with pytest.raises(ValueError, match="a model folder of yours"):
        suite.run(write=True, out=tmp_path)
    folder = build().save(tmp_path / "model")
    report = suite.run(folder, 6, 2, out=tmp_path / "out", every=4, write=True, progress=False)
    half, end = report["rows"]
    assert (half["step"], end["step"]) == (4, 6) and half["sound final"] is not None
    assert math.isclose(end["decoded"][0], end["final"][0], abs_tol=1e-6)
    assert end["decoded"][0] > 0.5
    assert "| 4 |" in (tmp_path / "out" / "preview.md").read_text()
    run(syncflow.load(folder), steps=1, preview=lambda one: None)
