"""`candidates`: a clip is drawn again until picture, sound and caption agree."""

import pytest
import torch

from syncflow import impacts
from syncflow.cli import main
from syncflow.clip import Clip
from syncflow.detect import contacts, onsets
from syncflow.generation.choice import candidates
from tests.small_model import PROMPT, build


@pytest.fixture(scope="module")
def model():
    return build()


def run(model, prompt=PROMPT, **options):
    return model.generate(prompt, progress=False, steps=2, **options)


@pytest.fixture(scope="module")
def bounces():
    """Count -> a rendered clip with so many bounces, each seen and heard."""
    found = {}
    for seed in impacts.SEEDS["val"]:
        scene = impacts.sample_scene(seed, 1, "val")
        count = scene.attributes["count"]
        if count not in found:
            found[count] = Clip(
                torch.from_numpy(impacts.render(scene, 64, 64)),
                torch.from_numpy(impacts.sound(scene)),
            )
        if len(found) == 4:
            return found


@pytest.mark.parametrize(
    ("prompt", "count"),
    [
        ("a metal ball bounces twice", 2),
        ("A METAL BALL BOUNCES TWICE.", 2),
        ("it hits the floor 3 times", 3),
        ("it hits the floor 12 times", 12),
        ("four bounces of a red ball", 4),
        ("One bounce: a ball", 1),
        ("a ball bounces a single time", 1),
        ("a four-bounce clip", 4),
        ("a steel ball bounces once and a glass ball three times", 4),
        ("a ball falls on two tiles", None),
        ("a ball bounces", None),
        ("three small balls", None),
        ("three small balls fall into water", 3),
        ("into a pool drops 1 box", 1),
        ("the glass ball splashing into the water", 1),
        ("the glass balls splash into the water", None),
        ("some stones drop into water one after another", None),
        ("a ball falls into a pool twice", 2),
        ("sometimes a ball bounces", None),
    ],
)
def test_the_count_is_read_from_numerals_and_words(prompt: str, count: int | None) -> None:
    assert candidates.said_count(prompt) == count


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("level", [1, 3])
def test_the_count_is_read_from_what_the_world_says(split: str, level: int) -> None:
    for seed in impacts.SEEDS[split][:400]:
        scene = impacts.sample_scene(seed, level, split)
        what = scene.attributes
        said = what["count"] if "count" in what["mentioned"] else None
        if said is not None and "second" in what:
            said += what["second"]["count"]
        if what["kind"] == "splash" and what["count"] == 1:
            said = 1  # "a ball" is one
        assert candidates.said_count(scene.caption) == said, scene.caption


def test_what_agrees(bounces) -> None:
    two = bounces[2]
    late = Clip(two.video, torch.cat([torch.zeros(9600), two.audio])[: len(two.audio)])
    still = Clip(two.video[:1].expand(32, -1, -1, -1), two.audio)
    silent = Clip(two.video, torch.zeros_like(two.audio))
    nothing = Clip(still.video, silent.audio)
    for clip, count, agrees in (
        (two, 2, 1), (two, None, 1), (two, 3, 0), (late, 2, 0), (still, None, 0),
        (silent, None, 0), (nothing, None, 0), (Clip(bounces[3].video, two.audio), None, 0),
    ):  # fmt: skip
        judged = candidates.judge(clip, count)
        assert judged.scores["agrees"] == agrees, (count, judged.scores)
        assert judged.scores["contacts"] == len(contacts.times(clip.video, clip.fps))
        assert judged.scores["onsets"] == len(onsets.times(clip.audio, clip.sample_rate))


def test_the_first_that_agrees_is_taken_and_only_others_are_drawn_again(bounces) -> None:
    silent = Clip(bounces[2].video, torch.zeros_like(bounces[2].audio))
    script = {  # seed -> what is drawn
        7: bounces[2], 8: silent, 9: bounces[3],
        8 + candidates.STRIDE: bounces[1], 9 + candidates.STRIDE: bounces[2],
        8 + 2 * candidates.STRIDE: bounces[4],
    }  # fmt: skip
    calls = []

    def draw(rows, seeds):
        calls.append((list(rows), list(seeds)))
        return [script[seed] for seed in seeds]

    prompts = ["it bounces twice", "it bounces three times", "it bounces twice"]
    clips = candidates.best(draw, prompts, 7, 3)
    step = candidates.STRIDE
    assert calls == [([0, 1, 2], [7, 8, 9]), ([1, 2], [8 + step, 9 + step]), ([1], [8 + 2 * step])]
    assert [clip.scores["candidate"] for clip in clips] == [0, 2, 1]
    # Four bounces that are all heard are nearer to three than one, or than three unheard.
    assert [clip.scores["agrees"] for clip in clips] == [1, 0, 1]
    assert torch.equal(clips[1].video, bounces[4].video)


def test_the_first_candidate_is_the_clip_that_one_draw_gives(model, monkeypatch) -> None:
    def agreeing(clip, count, candidate):
        return Clip(clip.video, clip.audio, scores={"agrees": 1.0})

    plain = run(model, [PROMPT, PROMPT], seed=3)
    monkeypatch.setattr(candidates, "judge", agreeing)
    monkeypatch.setattr(candidates, "_rank", lambda clip, count: 0)
    for clip, one in zip(run(model, [PROMPT, PROMPT], seed=3, candidates=4), plain, strict=True):
        assert torch.equal(clip.video, one.video) and torch.equal(clip.audio, one.audio)


def test_a_later_candidate_is_the_clip_of_its_own_seed(model, monkeypatch) -> None:
    """And the same whatever else is drawn; the small model's clips never agree."""
    drawn = {}

    def kept(clip, count, candidate):
        drawn.setdefault(candidate, []).append(clip)
        return Clip(
            clip.video, clip.audio,
            scores={"agrees": 0.0, "contacts": 1.0, "agreement": float(candidate)},
        )  # fmt: skip

    monkeypatch.setattr(candidates, "judge", kept)
    last = run(model, seed=5, candidates=3)
    assert sorted(drawn) == [0, 1, 2]
    alone = model.generate(PROMPT, progress=False, steps=2, seed=5 + 2 * candidates.STRIDE)
    assert torch.equal(last.video, alone.video) and torch.equal(last.audio, alone.audio)
    assert not torch.equal(drawn[0][0].audio, drawn[1][0].audio)


def test_each_candidate_keeps_its_prompts_contacts() -> None:
    from tests.small_model import CONFIG

    told = build(ddit={**CONFIG["ddit"], "event_bins": 3})
    times = [[0.3], [0.7]]
    both = run(told, [PROMPT, PROMPT], contacts=times, candidates=2)
    for row, clip in enumerate(both):
        seed = row + int(clip.scores["candidate"]) * candidates.STRIDE
        alone = run(told, contacts=times[row], seed=seed)
        assert (clip.video.int() - alone.video.int()).abs().max() <= 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (dict(candidates=0), "candidates must be a whole number between 1 and 100, got 0"),
        (dict(candidates=2, audio_takes=2), "candidates is 2, and candidates have one take"),
        (dict(candidates=2, video=torch.zeros(16, 3, 32, 32, dtype=torch.uint8)), "stays as it is"),
    ],
)
def test_what_makes_no_sense_is_refused(model, options: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        run(model, **options)


def test_the_command_says_which_it_is(tmp_path, capsys) -> None:
    build().save(tmp_path / "model")
    out = tmp_path / "clip.mp4"
    arguments = ["generate", PROMPT, "--model", str(tmp_path / "model"), "-o", str(out)]
    assert main([*arguments, "--candidates", "2", "--steps", "1", "--no-progress"]) == 0
    told = capsys.readouterr()
    assert told.out == f"{out}\n"
    assert f"{out}: candidate " in told.err and "contacts seen" in told.err


def test_a_folders_own_number_is_for_what_it_can_be_used_for(model):
    """Takes are of one picture: a model's own setting says nothing there, a caller's is refused."""
    config = model.config
    sampling = config.sampling.model_copy(update={"candidates": 2})
    model.config = config.model_copy(update={"sampling": sampling})
    try:
        assert len(run(model, audio_takes=2)) == 2
        with pytest.raises(ValueError, match="candidates is 3"):
            run(model, audio_takes=2, candidates=3)
    finally:
        model.config = config
