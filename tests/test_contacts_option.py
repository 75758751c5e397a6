"""`contacts`: a user says when things touch."""

import pytest
import torch

from syncflow.cli import main
from syncflow.clip import Clip
from syncflow.commands import options
from syncflow.generation.events import events, planned
from tests.small_model import CONFIG, PROMPT, build


@pytest.fixture(scope="module")
def told():
    return build(ddit={**CONFIG["ddit"], "event_bins": 3})


def run(model, prompt=PROMPT, **options):
    return model.generate(prompt, progress=False, steps=2, **options)


def test_times_reach_picture_and_sound_and_their_order_does_not_count(told) -> None:
    plain, one = run(told), run(told, contacts=[0.3, 0.7])
    assert (one.video.int() - plain.video.int()).abs().max() > 1
    assert not torch.allclose(one.audio, plain.audio, atol=1e-4)
    assert (run(told, contacts=[0.7, 0.3]).video.int() - one.video.int()).abs().max() <= 1
    assert (run(told, contacts=[0.3, 0.2]).video.int() - one.video.int()).abs().max() > 1
    assert torch.equal(run(told, contacts=[]).video, plain.video)
    assert torch.equal(run(told, contacts=None).video, plain.video)


def test_each_prompt_may_have_its_own(told) -> None:
    both = run(told, [PROMPT, PROMPT], contacts=[[0.3, 0.7], [0.5]], seed=3)
    for clip, times, seed in zip(both, ([0.3, 0.7], [0.5]), (3, 4), strict=True):
        alone = run(told, contacts=times, seed=seed)
        assert (clip.video.int() - alone.video.int()).abs().max() <= 1


def test_sound_for_a_given_picture_hears_of_them_too(told) -> None:
    picture = run(told)
    given = Clip(picture.video, picture.audio, 16, 48000)
    plain, one = run(told, video=given), run(told, video=given, contacts=[0.4])
    assert torch.equal(plain.video, one.video)
    assert not torch.allclose(plain.audio, one.audio, atol=1e-4)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (dict(takes_times=False), "not trained to be told when things touch"),
        (dict(contacts=[0.1, 1.5]), "at 0 to 1 seconds, got 1.5"),
        (dict(contacts=[-0.1]), "at 0 to 1 seconds, got -0.1"),
        (dict(contacts=[float("nan")]), "got nan"),
        (dict(contacts=["soon"]), "got 'soon'"),
        (dict(contacts=0.5), "or a list of them for each prompt: 0.5"),
        (dict(contacts=[[0.1], 0.2]), "or a list of them for each prompt: [[0.1], 0.2]"),
        (dict(contacts=[[0.1], [0.2], [0.3]]), "contacts for 3 prompts, and there are 2"),
    ],
)
def test_what_cannot_be_is_told_with_its_value(given: dict, said: str) -> None:
    with pytest.raises(ValueError) as error:
        events(**{"contacts": [0.5], "prompts": 2, "takes_times": True, "seconds": 1.0, **given})
    assert said in str(error.value)


def test_whole_seconds_are_times_too() -> None:
    found = events([[1], [0, 2]], prompts=2, takes_times=True, seconds=2.0)
    assert found.dtype == torch.float32 and found[1].tolist() == [0, 2]
    assert found[0, 0] == 1 and found[0, 1].isnan()


def test_the_command_line_takes_them_and_refuses_what_is_no_time(tmp_path, capsys) -> None:
    assert main(["generate", "x", "--contacts", "0.4,soon"]) == 2
    assert "got soon" in capsys.readouterr().err
    out = ["-o", str(tmp_path / "clip.mp4"), "--no-progress", "--steps", "2"]
    assert main(["generate", "a ball", "--contacts", "0.4,2.1", *out]) == 2
    assert "at 0 to 2 seconds, got 2.1" in capsys.readouterr().err
    for given, means in (("0.4,1.1", [0.4, 1.1]), ("None", [])):
        assert main(["generate", "a ball", "--contacts", given, *out]) == 0
        assert options.contacts(given) == means


RHYTHMS = [[0.2, 0.6], [0.3], [0.4, 0.7], [0.5], [0.1, 0.4, 0.8]]


def with_rhythms(ddit=None, rhythms=RHYTHMS):
    ddit = {**CONFIG["ddit"], "event_bins": 3} if ddit is None else ddit
    return build(ddit=ddit, rhythms=rhythms)


def test_a_rhythm_has_as_many_contacts_as_the_caption_says_and_the_seed_decides() -> None:
    config = with_rhythms().config
    prompts = ["a ball hits twice", "a ball", " ", "it falls four times", "A BALL BOUNCES ONCE"]
    found = [planned(config, prompts, [seed] * 5, 1.0) for seed in range(60)]
    lists = [[[round(t, 3) for t in row[~row.isnan()].tolist()] for row in f] for f in found]
    assert {tuple(f[0]) for f in lists} == {(0.2, 0.6), (0.4, 0.7)}
    assert {tuple(f[1]) for f in lists} == set(map(tuple, RHYTHMS))
    assert all(not f[2] and not f[3] for f in lists)
    assert {tuple(f[4]) for f in lists} == {(0.3,), (0.5,)}
    assert torch.equal(planned(config, prompts[:1], [7], 1.0)[0], found[7][0, :2])
    assert planned(config, prompts, [0] * 5, 2.0) is None, "rhythms are of clips of one length"
    assert planned(with_rhythms(rhythms=None).config, prompts, [0] * 5, 1.0) is None


def test_where_nobody_says_when_the_clip_is_that_of_its_rhythm() -> None:
    model = with_rhythms()
    prompts = ["a ball hits twice", "a ball"]
    when = planned(model.config, prompts, [5, 6], 1.0)
    asked = [row[~row.isnan()].tolist() for row in when]
    plain = run(model, prompts, seed=5)
    for clip, same in zip(plain, run(model, prompts, seed=5, contacts=asked), strict=True):
        assert (clip.video.int() - same.video.int()).abs().max() <= 1
    alone = run(model, prompts[1], seed=6)
    assert (alone.video.int() - plain[1].video.int()).abs().max() <= 1
    open_ = run(model, prompts[1], seed=6, contacts=[])
    assert (open_.video.int() - alone.video.int()).abs().max() > 1
    without = with_rhythms(rhythms=None)
    assert torch.equal(run(without, prompts[1], seed=6).video, open_.video)


def test_what_is_given_knows_already_when_things_touch() -> None:
    model, without = with_rhythms(), with_rhythms(rhythms=None)
    given = run(without, seed=1)
    for what in ({"video": given}, {"image": given.video[0]}):
        ours, theirs = run(model, seed=2, **what), run(without, seed=2, **what)
        assert torch.equal(ours.video, theirs.video) and torch.equal(ours.audio, theirs.audio)


def test_rhythms_need_a_model_that_takes_times() -> None:
    with pytest.raises(ValueError, match="ddit.event_bins is 0"):
        with_rhythms(ddit=CONFIG["ddit"])
    with pytest.raises(ValueError, match="rhythms"):
        with_rhythms(rhythms=[[]])


def test_a_cached_tower_is_told_too(told) -> None:
    plain = run(told, contacts=[0.3])
    cached = run(told, contacts=[0.3], cache="video", cache_threshold=1e-6)
    assert (cached.video.int() - plain.video.int()).abs().max() <= 1
    assert (cached.video.int() - run(told).video.int()).abs().max() > 1


def test_captions_of_one_sort_have_rhythms_of_their_own() -> None:
    sorts = [
        {"words": ["stick", "struck"], "times": [[0.6], [0.2, 0.9]]},
        {"counts": 2, "times": [[0.1, 0.5]]},
    ]
    ddit = {**CONFIG["ddit"], "event_bins": 3}
    config = build(ddit=ddit, rhythms=RHYTHMS, rhythms_of=sorts).config
    prompts = [
        "a STICK hits a drum twice",
        "a ball bounces once and another one once",
        "a drum is struck once and once more",
        "a ball bounces twice",
        "a drumstick falls twice",
    ]
    found = {
        tuple(tuple(round(t, 3) for t in row[~row.isnan()].tolist()) for row in when)
        for seed in range(40)
        if (when := planned(config, prompts, [seed] * 5, 1.0)) is not None
    }
    assert {each[0] for each in found} == {(0.2, 0.9)}
    assert {each[1] for each in found} == {(0.1, 0.5)}
    assert {each[2] for each in found} == {(0.2, 0.9)}, "words come before what comes after them"
    assert {each[3] for each in found} == {each[4] for each in found} == {(0.2, 0.6), (0.4, 0.7)}
    alone = build(ddit=ddit, rhythms_of=sorts).config
    when = planned(alone, prompts, [0] * 5, 1.0)
    assert when is not None and when[3].isnan().all(), "nothing is told where no sort fits"
    with pytest.raises(ValueError, match="of which captions"):
        build(ddit=ddit, rhythms_of=[{"times": [[0.5]]}])
    with pytest.raises(ValueError, match="event_bins is 0"):
        build(rhythms_of=sorts)
