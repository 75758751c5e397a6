"""Clips that go on and parts drawn anew: what is given comes back as it was."""

import itertools

import numpy as np
import pytest
import torch

import syncflow
from syncflow import flow
from syncflow.cli import main
from syncflow.clip import Clip
from syncflow.config import RhythmsConfig
from syncflow.data import media
from syncflow.generation import extension
from syncflow.generation import window as window_module
from syncflow.generation.events import going_on
from syncflow.noise_steps import Held
from tests.small_model import build

PROMPT = "a metal ball bounces three times on concrete"
FEW = {"steps": 2, "audio_steps": 2, "progress": False}
SEAM = 480  # samples of 10 ms


@pytest.fixture(scope="module")
def model():
    return syncflow.load()


@pytest.fixture(scope="module")
def clip(model):
    return model.generate(PROMPT, seed=3, **FEW)


@pytest.mark.parametrize("seconds, pictures", [(1.0, 48), (2.5, 72), (0.0625, 33)])
def test_a_clip_goes_on_from_what_it_was(model, clip, seconds, pictures):
    longer = model.generate(PROMPT, extend=clip, seconds=seconds, seed=5, **FEW)
    assert len(longer.video) == pictures and len(longer.audio) == pictures * 3000
    assert torch.equal(longer.video[:32], clip.video)
    assert torch.equal(longer.audio[: 96000 - SEAM], clip.audio[:-SEAM])
    assert longer.audio[96000:].abs().max() > 0
    again = model.generate(PROMPT, extend=clip, seconds=seconds, seed=5, **FEW)
    assert torch.equal(again.video, longer.video) and torch.equal(again.audio, longer.audio)
    assert longer.made["extend"] and longer.made["seed"] == 5


def test_several_prompts_go_on_in_turn_and_several_clips_each_for_itself(model, clip):
    words = [PROMPT, "a wooden ball bounces once"]
    first, second = model.generate(words, extend=clip, seconds=0.5, seed=2, **FEW)
    assert len(first.video) == 40 and len(second.video) == 48
    assert torch.equal(second.video[:40], first.video)
    other = model.generate(PROMPT, seed=9, **FEW)
    each = model.generate(words, extend=[clip, other], seconds=0.5, seed=2, **FEW)
    assert torch.equal(each[0].video, first.video)
    assert torch.equal(each[1].video[:32], other.video) and len(each[1].video) == 40


@pytest.fixture
def windows(monkeypatch):
    """What every window was given and told, and what became of it."""
    seen = []

    def drawn(model, prompt, spec, window, asked, source, wishes, when=None):
        latents = window_module.drawn(model, prompt, spec, window, asked, source, wishes, when)
        times = [] if when is None else [round(t, 3) for t in when[~when.isnan()].tolist()]
        seen.append((window, times, latents))
        return latents

    monkeypatch.setattr(extension, "drawn", drawn)
    return seen


def test_a_window_is_given_what_the_one_before_drew(model, clip, windows):
    """Also the next prompt's first, and where the last window is cut between latents of both."""
    model.generate([PROMPT, PROMPT], extend=clip, seconds=1.5, **FEW)
    assert len(windows) == 4
    for ended, ((_, _, (video, audio)), (window, _, _)) in zip(
        ((8, 100), (6, 75), (8, 100)), itertools.pairwise(windows), strict=True
    ):
        frames, sounds = ended
        assert torch.equal(window.video[:, :, :4], video[:, :, frames - 4 : frames])
        assert torch.equal(window.audio[:, :50], audio[:, sounds - 50 : sounds])


@pytest.mark.parametrize("pictures, seconds", [(6, 2.25), (32, 1.1), (4, 2)])
def test_lengths_that_fit_no_latents_go_on_too(model, clip, pictures, seconds):
    short = Clip(clip.video[:pictures], clip.audio[: pictures * 3000])
    made = model.generate([PROMPT, PROMPT], extend=short, seconds=seconds, **FEW)
    added = round(seconds * 16)
    for turn, longer in enumerate(made, 1):
        assert len(longer.video) == pictures + turn * added
        assert len(longer.audio) == len(longer.video) * 3000
    assert torch.equal(made[1].video[: pictures + added], made[0].video)


@pytest.mark.parametrize(("seconds", "encoded"), [(1.5, 2), (1.0, 1)])
def test_half_a_window_of_no_whole_latents_is_encoded_again(seconds, encoded, monkeypatch):
    """Half of 1.5 s is 12 frames and 37.5 latents of sound; of 1 s it is 8 and 25."""
    tiny = build(geometry={"seconds": seconds, "fps": 16, "height": 32, "width": 32})
    clip = tiny.generate(PROMPT, seed=1, **FEW)
    calls = []
    codecs = type(tiny.codecs)
    encode = codecs.encode_audio
    monkeypatch.setattr(
        codecs, "encode_audio", lambda self, audio: (calls.append(1), encode(self, audio))[1]
    )
    tiny.generate(PROMPT, extend=clip, seconds=seconds, **FEW)
    assert len(calls) == encoded


def test_every_window_is_told_the_times_in_it(model, clip, windows, monkeypatch):
    monkeypatch.setattr(extension.detector, "times", lambda video, fps: [0.4, 1.3])
    asked = {"contacts": [3.2, 2.5], "seconds": 2.0, "seed": 1}
    one = model.generate(PROMPT, extend=clip, **asked, **FEW)
    assert [told for _, told, _ in windows] == [[0.3, 1.5], [0.5, 1.2]]
    assert one.made["contacts"] == [3.2, 2.5]
    plain = model.generate(PROMPT, extend=clip, seconds=2.0, seed=1, contacts=[], **FEW)
    assert [told for _, told, _ in windows[2:]] == [[], []]
    assert not torch.equal(plain.video, one.video) and torch.equal(plain.video[:32], clip.video)


def test_of_a_long_clip_the_last_window_is_looked_at(model, clip, windows, monkeypatch):
    """The detector's times are of what it is shown."""
    shown = []
    monkeypatch.setattr(
        extension.detector, "times", lambda video, fps: (shown.append(len(video)), [1.3])[1]
    )
    long = Clip(torch.cat([clip.video, clip.video]), torch.cat([clip.audio, clip.audio]))
    model.generate(PROMPT, extend=long, contacts=[4.5], seconds=1, **FEW)
    assert shown == [32] and [told for _, told, _ in windows] == [[0.3, 1.5]]


def test_what_is_planned_beyond_the_end_is_not_told_to_the_next_prompt(
    model, clip, windows, monkeypatch
):
    monkeypatch.setattr(extension.detector, "times", lambda video, fps: [0.4])
    monkeypatch.setattr(extension.events, "going_on", lambda *_: [1.2, 1.9])
    model.generate([PROMPT] * 2, extend=clip, seconds=0.5, **FEW)
    first, second = (told for _, told, _ in windows)
    assert first == [1.2, 1.9]  # the clip's own contact was before the window
    assert second == [0.7, 1.2, 1.9]  # 2.2 s of the whole; 2.9 s was cut away


def test_times_of_prompts_in_turn_are_of_the_clip_that_each_goes_on_from(
    model, clip, windows, monkeypatch
):
    monkeypatch.setattr(extension.detector, "times", lambda video, fps: [1.3])
    both = model.generate([PROMPT] * 2, extend=clip, contacts=[[2.5], [3.2]], seconds=1, **FEW)
    assert [told for _, told, _ in windows] == [[0.3, 1.5], [0.5, 1.2]]
    assert [made.made["contacts"] for made in both] == [[2.5], [3.2]]
    with pytest.raises(ValueError, match="at 3 to 4 seconds .* prompts in turn take a list each"):
        model.generate([PROMPT] * 2, extend=clip, contacts=[2.5], seconds=1, **FEW)
    model.generate([PROMPT] * 2, extend=[clip, clip], contacts=[2.5], seconds=1, **FEW)
    assert [told for _, told, _ in windows[2:]] == [[0.3, 1.5]] * 2


def test_where_nobody_says_when_the_seed_plans(model, clip, windows, monkeypatch):
    monkeypatch.setattr(extension.detector, "times", lambda video, fps: [0.4, 1.3])
    how = {"extend": clip, "seconds": 2.0, **FEW}
    one, again = (model.generate(PROMPT, seed=7, **how) for _ in range(2))
    assert torch.equal(one.video, again.video) and torch.equal(one.audio, again.audio)
    (_, first, _), (_, second, _), *same = windows
    assert [told for _, told, _ in same] == [first, second]
    new = [t for t in first if t >= 1]
    assert first[0] == 0.3 and new
    assert [t for t in second if t < 1] == pytest.approx([t - 1 for t in new])
    for seed in range(8, 14):
        model.generate(PROMPT, seed=seed, **how)
    assert any(told != first for _, told, _ in windows[4::2])
    monkeypatch.setattr(model, "config", model.config.model_copy(update={"rhythms": None}))
    model.generate(PROMPT, seed=7, **how)
    assert [told for _, told, _ in windows[-2:]] == [[], []]


@pytest.mark.parametrize("contacts", [iter([2.5]), {2.5}, torch.tensor(2.5), object(), "2.5"])
def test_times_are_a_list(model, clip, contacts):
    with pytest.raises(ValueError, match="contacts are times, or a list of them"):
        model.generate(PROMPT, extend=clip, contacts=contacts, seconds=1, **FEW)
    with pytest.raises(ValueError, match="contacts are times, or a list of them"):
        model.generate(PROMPT, contacts=contacts, **FEW)


def test_a_model_that_takes_no_times_goes_on_untold():
    tiny = build()
    given = tiny.generate(PROMPT, progress=False)
    with pytest.raises(ValueError, match="not trained to be told when things touch"):
        tiny.generate(PROMPT, extend=given, contacts=[1.2], progress=False)
    assert len(tiny.generate(PROMPT, extend=given, progress=False).video) == 24


RHYTHMS = [[0.2, 0.9, 1.5], [0.2, 0.9], [0.5, 1.2, 1.7], [0.5, 1.2], [1.4], [0.3, 0.7, 1.05, 1.35]]


@pytest.mark.parametrize(
    ("prompt", "before", "new"),
    [
        ("a ball bounces three times", [0.2, 0.9], [1.5]),
        ("a ball bounces three times", [-0.3, 0.5], [1.2, 1.7]),
        ("a ball bounces twice", [-0.3, 0.5], [1.2]),
        ("a ball bounces twice", [0.2, 0.9], [1.5]),  # two, but the second flight would be longer
        ("a ball bounces nine times", [0.2, 0.9], [1.5]),  # none has so many
        ("a ball bounces four times", [0.3, 0.7], [1.05, 1.35]),
        ("a ball", [], [1.4]),
        ("a ball", [-0.2], [1.4]),
    ],
)
def test_a_plan_goes_on_as_a_rhythm_that_began_so(model, prompt, before, new):
    config = model.config.model_copy(update={"rhythms": RHYTHMS})
    draw = np.random.default_rng(0)
    assert going_on(config, prompt, before, 1.0, draw) == new


def test_a_plan_of_a_caption_of_one_sort_goes_on_as_its_rhythms(model):
    sort = RhythmsConfig(words=["stick"], times=[[0.2, 0.9, 1.3]])
    config = model.config.model_copy(update={"rhythms": RHYTHMS, "rhythms_of": [sort]})
    draw = np.random.default_rng(0)
    assert going_on(config, "a stick hits a drum three times", [0.2, 0.9], 1.0, draw) == [1.3]
    assert going_on(config, "a ball bounces three times", [0.2, 0.9], 1.0, draw) == [1.5]


def test_a_plan_has_no_flight_much_shorter_than_the_one_before(model):
    rhythms = [[0.1, 0.9, 1.02], [0.25, 0.9, 1.5]]
    config = model.config.model_copy(update={"rhythms": rhythms})
    assert going_on(config, "a ball", [0.1, 0.9], 1.0, np.random.default_rng(0)) == [1.5]


def test_the_flight_under_way_at_the_end_counts(model):
    """As many contacts as it says are no reason for a ball that stays in the air."""
    rhythms = [[0.1, 0.5, 0.9, 1.2], [0.1, 0.5, 0.9, 1.2, 1.5, 1.8]]
    config = model.config.model_copy(update={"rhythms": rhythms})
    draw = np.random.default_rng(0)
    new = going_on(config, "a ball bounces five times", [0.1, 0.5, 0.9], 1.0, draw)
    assert new == [1.2, 1.5, 1.8]


def test_flights_of_a_plan_become_no_longer_on_the_whole(model):
    """Nearly: the shipped rhythms know no bounces as short as a ball's are in the end."""
    for seed in range(30):
        draw, times = np.random.default_rng(seed), [0.3, 1.2]
        for begin in range(1, 9):
            before = [time - begin for time in times]
            times += [t + begin for t in going_on(model.config, "a ball", before, 1.0, draw)]
        gaps = np.diff(times)
        assert 0.2 < gaps.min() and gaps.max() < 1.2 and len(gaps) >= 8, times
        assert gaps[-6:].mean() < gaps[:3].mean() and np.diff(gaps).max() < 0.3, times


def test_a_file_goes_on(model, clip, tmp_path):
    path = clip.save(tmp_path / "clip.mp4")
    longer = model.generate(PROMPT, extend=path, seconds=0.5, **FEW)
    read = Clip.load(path, height=64, width=64)
    assert torch.equal(longer.video[:32], read.video) and len(longer.video) == 40
    assert (
        longer.save(tmp_path / "longer.mp4") and media.probe(tmp_path / "longer.mp4").seconds == 2.5
    )


@pytest.mark.parametrize("way", ["clean", "noised"])
def test_given_frames_bear_on_the_new_ones(model, clip, way, monkeypatch):
    config = model.config.model_copy(update={"given_frames": way})
    monkeypatch.setattr(model, "config", config)
    dark = Clip(clip.video // 8, clip.audio)
    made = [model.generate(PROMPT, extend=c, seconds=1, **FEW) for c in (clip, dark)]
    new = [c.video[32:40].float().mean() for c in made]
    assert new[0] - new[1] > 20, "the same noise and words, on from another picture"


@pytest.mark.parametrize("part", ["audio", "video", "both"])
@pytest.mark.parametrize("span", [(0.5, 1.2), (0, 0.3), (1.7, 2.0)])
def test_outside_of_the_span_nothing_changes(model, clip, part, span):
    new = model.generate(PROMPT, retake=clip, span=span, part=part, seed=11, **FEW)
    begin, end = (round(t * 48000) for t in span)
    frames = [f for f in range(32) if span[0] <= f / 16 < span[1]]
    sound, picture = new.audio != clip.audio, (new.video != clip.video).flatten(1).any(1)
    assert not sound[:begin].any() and not sound[end:].any()
    assert sound.any() == (part != "video")
    assert {int(f) for f in picture.nonzero()} <= set(frames)
    assert picture.any() == (part != "audio")
    assert new.video.shape == clip.video.shape and new.audio.shape == clip.audio.shape


@pytest.mark.parametrize("schedule", ["cascade", "joint"])
def test_a_picture_drawn_anew_is_finished_whatever_the_sound_does(model, clip, schedule):
    """The picture never reads the sound, so both parts hold the picture that one alone has."""
    how = {**FEW, "span": (0.5, 1.5), "seed": 4, "schedule": schedule}
    both, picture = (model.generate(PROMPT, retake=clip, part=p, **how) for p in ("both", "video"))
    assert torch.equal(both.video, picture.video)
    clocks = []
    model.generate(PROMPT, retake=clip, part="both", callback=lambda *a: clocks.append(a[2]), **how)
    assert clocks[-1] == (1, 1) and clocks[0][0] < 1, "from noise to data, step by step"


def test_a_seam_has_no_jump(model, clip):
    """The new sound starts where the old one is: no step larger than either has inside."""
    loud = Clip(clip.video, 0.5 * torch.sin(torch.arange(96000) / 20))
    new = model.generate(PROMPT, retake=loud, span=(0.5, 1.0), seed=1, **FEW)
    steps = new.audio.diff().abs()
    for place in (24000, 48000):
        assert steps[place - 5 : place + 5].max() < 0.03


def test_a_sound_shorter_than_its_picture_is_drawn_to_the_spans_end(model, clip):
    short = Clip(clip.video, clip.audio[:48000])
    new = model.generate(PROMPT, retake=short, span=(1.5, 1.9), **FEW)
    assert len(new.audio) == round(1.9 * 48000) and torch.equal(new.audio[:48000], short.audio)
    assert not new.audio[48000:72000].any() and new.audio[72000:].any()


def test_a_films_picture_stays_the_films(model, clip, tmp_path):
    """Another rate and size than the model's, and its packets are copied."""
    picture = torch.nn.functional.interpolate(clip.video.float(), (96, 128)).to(torch.uint8)
    film = Clip(picture.repeat_interleave(2, 0), clip.audio, fps=32).save(tmp_path / "film.mp4")
    new = model.generate("", retake=film, span=(0.5, 1.0), **FEW)
    new.save(tmp_path / "new.mp4")
    before, after = (Clip.load(p, fps=32).video for p in (film, tmp_path / "new.mp4"))
    assert torch.equal(before, after) and new.picture_file == film
    with pytest.raises(ValueError, match="size and rate"):
        model.generate("", retake=film, span=(0.5, 1.0), part="video", **FEW)


def test_a_file_of_another_rate_keeps_its_picture(model, clip, tmp_path):
    """Read at the model's rate, all of its pictures would be others."""
    film = Clip(clip.video, clip.audio, fps=8).save(tmp_path / "slow.mp4")
    for part in ("video", "both"):
        with pytest.raises(ValueError, match="the clip is 64x64 at 8 fps; a picture that is drawn"):
            model.generate(PROMPT, retake=film, span=(0.5, 1.0), part=part, **FEW)
    own = clip.save(tmp_path / "own.mkv")  # in which times are rounded to milliseconds
    new = model.generate(PROMPT, retake=own, span=(0.5, 1.0), part="video", **FEW)
    assert torch.equal(new.video[:8], Clip.load(own).video[:8])


def test_clips_without_pixels_are_refused(model):
    for shape in ((0, 3, 64, 64), (32, 3, 0, 64), (32, 3, 64, 0)):
        empty = Clip(torch.zeros(shape, dtype=torch.uint8), torch.zeros(96000))
        for given in ({"extend": empty}, {"retake": empty, "span": (0, 1)}, {"video": empty},
                      {"image": empty.video[:1].reshape(3, *shape[2:]) if shape[0] else
                       empty.video.new_zeros(3, 0, 0)}):  # fmt: skip
            with pytest.raises(ValueError, match="pixels|picture|span must be"):
                model.generate(PROMPT, **given, **FEW)


@pytest.mark.parametrize(
    "options, said",
    [
        ({"span": None}, "span must be"),
        ({"span": (1, 0.5)}, "start < end <= 2 s"),
        ({"span": (0, 9)}, "start < end <= 2 s"),
        ({"span": (0, float("nan"))}, "span must be"),
        ({"span": "ab"}, "span must be"),
        ({"span": (0, 1), "part": "smell"}, "unknown part 'smell'"),
        ({"span": (0, 1), "seconds": 3}, "keeps the clip's length"),
        ({"span": (0, 1), "image": "x.png"}, "does not go with image"),
        ({"span": (0, 1), "audio_takes": 2}, "does not go with audio_takes"),
        ({"span": (0, 1), "extend": "x.mp4"}, "not both"),
        ({"span": (0, 1), "retake": 5}, "a Clip or a path, got int"),
        ({"span": (0, 1), "candidates": 2}, "does not go with candidates"),
        ({"span": (0, 1), "video": torch.zeros(4, 3, 8, 8)}, "does not go with video"),
        ({"span": (0, 1), "v2a": "paper"}, "does not go with v2a"),
        ({"span": (0, 1), "contacts": [0.5]}, "does not go with contacts"),
        ({"span": (0, 1), "rank": "best"}, "unknown rank 'best'"),
        ({"retake": None, "span": (0, 1)}, "give retake too"),
        ({"retake": None, "part": "smell"}, "unknown part 'smell'"),
        ({"retake": None, "strength": 5.0}, "give lora too"),
    ],
)
def test_what_makes_no_sense_is_refused(model, clip, options, said):
    with pytest.raises(ValueError, match=said):
        model.generate(PROMPT, **{"retake": clip, **options}, **FEW)


def test_what_cannot_go_on_is_refused(model, clip):
    for given, said in (
        (Clip(clip.video, clip.audio, fps=25), "25 frames/s"),
        (Clip(clip.video[:2], clip.audio), "2 pictures"),
        ([clip, clip], "2 clips to extend for 1 prompts"),
        (7, "a Clip or a path"),
    ):
        with pytest.raises(ValueError, match=said):
            model.generate(PROMPT, extend=given, **FEW)
    with pytest.raises(ValueError, match="span belongs to retake"):
        model.generate(PROMPT, extend=clip, span=(0, 1), **FEW)
    for wrong, said in (
        ({"part": "video"}, "part belongs to retake"),
        ({"v2a": "nonsense"}, "unknown v2a"),
        ({"image": "x.png"}, "does not go with image"),
        ({"contacts": [0.5]}, "at 2 to 3 seconds from the start of the clip that goes on, got 0.5"),
        ({"contacts": [2.5, 3.1]}, "at 2 to 3 seconds .* got 3.1"),
        ({"contacts": [float("nan")]}, "at 2 to 3 seconds .* got nan"),
        ({"contacts": [[2.5], [2.6]]}, "contacts for 2 prompts, and there are 1"),
    ):
        with pytest.raises(ValueError, match=said):
            model.generate(PROMPT, extend=clip, **wrong, **FEW)
    with pytest.raises(FileNotFoundError):
        model.generate(PROMPT, extend="gone.mp4", **FEW)


def test_what_is_held_takes_the_path_from_noise_to_data():
    given, data = torch.tensor([[True, False]]), torch.tensor([[5.0, 0.0]])
    noise = torch.tensor([[-1.0, 0.0]])
    seen = []

    def velocity(x, t, moving):
        seen.append((t[0], float(x[0][0, 0])))
        return [torch.ones_like(x[0])]

    held = Held(given, data, lambda like: noise)
    (end,) = flow.integrate(
        velocity, (torch.tensor([[-1.0, 2.0]]),), flow.times(4)[:, None], held=[held]
    )
    assert seen == [(t, -1 + 6 * t) for t in (0, 0.25, 0.5, 0.75)]
    assert end.tolist() == [[5.0, 3.0]]


def test_the_command_goes_on_and_retakes(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    few = ["--steps", "2", "--audio-steps", "2", "--no-progress"]
    assert main(["generate", PROMPT, "-o", "a.mp4", *few]) == 0
    assert main(["generate", PROMPT, PROMPT, "--extend", "a.mp4", "--seconds", "0.5",
                 "-o", "on-{i}.mp4", *few]) == 0  # fmt: skip
    lengths = [media.probe(f"on-{i}.mp4").seconds for i in (1, 2)]
    assert lengths == [2.5, 3.0]
    told = ["generate", PROMPT, "--extend", "a.mp4", "--contacts", "2.4", "-o", "told.mp4", *few]
    assert main(told) == 0 and media.probe("told.mp4").seconds == 3
    retake = ["generate", "--retake", "a.mp4", "--span", "0.5", "1"]
    assert main([*retake, "-o", "b.mp4", *few]) == 0
    assert torch.equal(Clip.load("a.mp4").video, Clip.load("b.mp4").video)
    capsys.readouterr()
    for wrong, said in (
        ([*retake, "-o", "a.mp4"], "a.mp4"),
        (["generate", PROMPT, "--span", "0", "1", "-o", "c.mp4"], "give --retake too"),
        (["generate", PROMPT, "--extend", "gone.mp4", "-o", "c.mp4"], "gone.mp4"),
        ([*told[:4], "--contacts", "1.4", "-o", "c.mp4"], "at 2 to 3 seconds"),
        (["generate", "--retake", "a.mp4", "-o", "c.mp4"], "span must be"),
    ):
        assert main(wrong) == 2
        err = capsys.readouterr().err
        assert said in err and err.count("\n") == 1
