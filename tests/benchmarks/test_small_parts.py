"""The pieces of benchmarks/gpu/small: optimizer, draws, captions, files."""

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.gpu.small import compiling, folder, plan, pool, world
from benchmarks.gpu.small.graph import Step, Tally
from benchmarks.gpu.small.optimizer import Optimizer, newton_schulz
from benchmarks.gpu.small.towers import DecoderSteps, Towers, validate
from syncflow import impacts
from syncflow.training.optim.optimizer import by_clock

CPU = torch.device("cpu")


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.ModuleDict(
        {"a": nn.Linear(24, 32), "b": nn.Linear(24, 32), "c": nn.Linear(32, 16),
         "embed": nn.Linear(24, 24)}
    )  # fmt: skip


def test_muon_is_torchs_and_the_rest_is_adamw():
    """Several steps on the same gradients: torch.optim's own result, within bfloat16's error."""
    ours, theirs = net(), net()
    optimizer = Optimizer(ours.named_parameters(), weight_decay=0.05, clip=1e9)
    optimizer.lr.fill_(0.01)
    matrices = [theirs[name].weight for name in "abc"]
    known = {id(p) for p in matrices}
    rest = [p for p in theirs.parameters() if id(p) not in known]
    muon = torch.optim.Muon(
        matrices, lr=0.01, weight_decay=0.05, momentum=0.95, adjust_lr_fn="match_rms_adamw"
    )
    groups = [{"params": [p for p in rest if p.ndim > 1], "weight_decay": 0.05},
              {"params": [p for p in rest if p.ndim < 2], "weight_decay": 0.0}]  # fmt: skip
    adam = torch.optim.AdamW(groups, lr=0.01, betas=(0.9, 0.98))
    before = {name: p.clone() for name, p in ours.named_parameters()}
    for step in range(4):
        g = torch.Generator().manual_seed(step)
        gradients = [torch.randn(p.shape, generator=g) for p in ours.parameters()]
        optimizer.step(gradients)
        for p, value in zip(theirs.parameters(), gradients, strict=True):
            p.grad = value.clone()
        muon.step()
        adam.step()
    for (name, p), q in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        moved = (q - before[name]).norm()
        assert (p - q).norm() < 0.03 * moved, name
    average = optimizer.averaged()
    assert set(average) == {name for name, _ in ours.named_parameters()}
    assert not torch.equal(average["a.weight"], ours["a"].weight)


def test_newton_schulz_makes_singular_values_alike():
    g = torch.Generator().manual_seed(0)
    for shape in ((3, 20, 40), (2, 40, 20)):
        values = torch.linalg.svdvals(newton_schulz(torch.randn(shape, generator=g)))
        assert values.min() > 0.5 and values.max() < 1.3


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_changes_nothing_and_is_counted(bad):
    module = net()
    optimizer = Optimizer(module.named_parameters())
    optimizer.lr.fill_(0.1)
    gradients = [torch.ones_like(p) for p in module.parameters()]
    optimizer.step(gradients)
    before = [p.clone() for p in module.parameters()]
    average = {k: v.clone() for k, v in optimizer.averaged().items()}
    gradients[0] = gradients[0].clone()
    gradients[0][0] = bad
    optimizer.lr.fill_(0.0)
    optimizer.step(gradients)
    assert optimizer.skipped == 1 and optimizer.steps == 1
    for p, old in zip(module.parameters(), before, strict=True):
        torch.testing.assert_close(p, old)
    torch.testing.assert_close(optimizer.averaged(), average)


def test_the_rate_warms_up_stays_and_falls_to_zero():
    rates = [by_clock(2.0, s, p, 10, 0.5) for s, p in ((0, 0.0), (9, 0.1), (99, 0.5),
                                                            (99, 0.75), (99, 1.0))]  # fmt: skip
    assert rates == pytest.approx([0.2, 2.0, 2.0, 1.0, 0.0])


def test_a_step_without_a_graph_counts_and_a_tally_forgets():
    calls = []
    step = Step(lambda: calls.append(1), CPU)
    for _ in range(3):
        step()
    assert (len(calls), step.count, step.mode) == (3, 3, "eager")
    tally = Tally(("a", "b"), CPU)
    tally.add(torch.tensor(1.0), torch.tensor(4.0))
    tally.add(torch.tensor(3.0), torch.tensor(0.0))
    assert tally.read() == {"a": 2.0, "b": 2.0} and tally.read() == {}


def test_drawn_rows_are_all_rows_and_no_others():
    rows = pool.random_rows(4000, torch.tensor(7.0))
    assert rows.unique().tolist() == list(range(7))
    assert pool.random_rows(50, torch.tensor(1.0)).unique().tolist() == [0]


def test_records_say_a_scene_in_several_ways_with_its_own_contacts():
    scene = impacts.sample_scene(world.FIRST_SEED + 3, level=3)
    record = world.record(scene)
    assert len(record.captions) == plan.CAPTIONS and len(set(record.captions)) > 1
    assert record.events_s == [c.time_s for c in scene.contacts if c.visible]
    again = world.record(scene)
    assert again == record
    rng = np.random.default_rng(0)
    spoken = {world.in_other_words("A ball bounces Twice, thrice", rng) for _ in range(60)}
    assert "A ball bounces 2 times, 3 times" in spoken
    assert "A ball bounces Twice, thrice" in spoken


def test_training_never_meets_captions_or_pairs_of_the_test_split():
    for number in range(300):
        lesson = world.lesson(world.FIRST_SEED + number, plan.FULL.levels, np.random.default_rng(0))
        assert not lesson.caption.lower().startswith(("watch ", "we see and hear", "here "))


def latents(config, count: int = 6) -> pool.Latents:
    g = torch.Generator().manual_seed(1)
    held = pool.Latents(8, config, CPU)
    records = [
        world.Record(1 + i % 4, "bounce", False, ["a ball"] * plan.CAPTIONS, [0.5, 1.0 + i / 10])
        for i in range(count)
    ]
    video = 1.5 + 0.1 * torch.randn(count, *held.video_NCTHW.shape[1:], generator=g)
    audio = 1.5 + 0.1 * torch.randn(count, *held.audio_NAD.shape[1:], generator=g)
    text = torch.randn(count, *held.text_NKLE.shape[1:], generator=g)
    mask = torch.ones(count, *held.mask_NKL.shape[1:], dtype=torch.bool)
    held.add(video, audio, text, mask, records)
    return held


def test_the_towers_learn_six_clips_and_the_audio_steps_leave_the_picture_alone():
    torch.manual_seed(0)
    config = plan.model_config(tiny=True)
    towers = Towers(folder.modules(config)["ddit"], latents(config), 6, torch.float32)
    towers.video.lr.fill_(3e-3)
    towers.audio.lr.fill_(3e-3)
    seen = []
    for _ in range(2):
        for _ in range(25):
            towers.video_step()
        seen.append(towers.losses()["video"])
    assert seen[1] < 0.9 * seen[0]
    picture = {k: v.clone() for k, v in towers.model.video_tower.state_dict().items()}
    sounds = []
    for _ in range(2):
        for _ in range(25):
            towers.audio_step()
        sounds.append(towers.losses()["audio"])
    assert sounds[1] < 0.95 * sounds[0]
    for name, value in towers.model.video_tower.state_dict().items():
        assert torch.equal(value, picture[name]), name
    found = validate(towers.model, towers.latents)
    assert set(found) >= {"val_video", "val_video_1", "val_audio", "val_audio_other"}
    assert all(np.isfinite(value) for value in found.values())


def test_blocks_stay_as_they_were_where_compiling_fails_or_takes_too_long(monkeypatch):
    torch.manual_seed(0)
    config = plan.model_config(tiny=True)
    towers = Towers(folder.modules(config)["ddit"], latents(config), 2, torch.float32)
    towers.video.lr.fill_(0.5)
    for fault, patience in ((RuntimeError("no compiler"), 60), (None, 0.05)):

        def step(fault=fault) -> None:
            if fault is not None:
                raise fault
            while True:
                pass

        with monkeypatch.context() as patch:
            patch.setattr(towers, "video_step", step)
            why = compiling.use(towers, patience)
        assert why == ("TimeoutError: not ready after 0.05 s" if fault is None
                       else "RuntimeError: no compiler")  # fmt: skip
        blocks = towers.model.video_tower._blocks()
        assert all(block._compiled_call_impl is None for block in blocks)
        assert towers.video.lr == 0.5
    towers.video_step()
    assert np.isfinite(towers.losses()["video"])


def test_a_second_process_that_fails_is_not_taken_for_done():
    ahead = compiling.Ahead(["--init", "/nowhere", "--device", "cpu"])
    try:
        ahead.process.wait(timeout=120)
        assert ahead.process.returncode == 2 and not ahead.done()
    finally:
        ahead.stop()


def test_spans_leave_something_to_make_and_hold_the_given_share():
    torch.manual_seed(0)
    config = plan.model_config(tiny=True)
    towers = Towers(folder.modules(config)["ddit"], latents(config), 2, torch.float32)
    moving = towers._spans(4000, 8)
    assert moving.any(1).all()
    given = ~moving.all(1)
    assert given.float().mean() == pytest.approx(0.15 * 7 / 8, abs=0.03)
    some = moving[given].int()
    assert (some.diff(dim=1).abs().sum(1) <= 2).all(), "one span each"
    assert (some[:, 0] == 1).any() and (some[:, -1] == 1).any()
    assert ((some[:, 0] == 0) & (some[:, -1] == 0)).any(), "an interior span"


def test_the_decoder_learns_on_latents_of_the_tower():
    torch.manual_seed(0)
    config = plan.model_config(tiny=True)
    parts = folder.modules(config)
    kept = latents(config)
    raw = pool.Raw(6, CPU)
    records = [world.Record(1, "bounce", False, ["x"] * plan.CAPTIONS, [])] * 6
    g = torch.Generator().manual_seed(2)
    video = torch.randint(0, 255, (6, 32, 3, 64, 64), generator=g, dtype=torch.uint8)
    raw.add(video, torch.zeros(6, 96000, dtype=torch.int16), records)
    encoders = pool.Encoders(parts["video_vae"], parts["audio_vae"], parts["text_encoder"], CPU)
    encoders.scale = {"video": (torch.zeros(12), torch.ones(12))}
    for part in parts.values():
        part.requires_grad_(False)
    steps = DecoderSteps(encoders, parts["ddit"], kept, raw, 2)
    worn = steps.worn(torch.arange(6))
    clean = kept.video_NCTHW[:6].float()
    distance = (worn - clean).flatten(1).std(1)
    assert distance.min() > 0 and distance.max() < 1.2
    steps.optimizer.lr.fill_(1e-3)
    encoder = parts["video_vae"].encoder["patch"].weight.clone()
    before = parts["video_vae"].decoder["input"].weight.clone()
    steps.step()
    assert torch.equal(parts["video_vae"].encoder["patch"].weight, encoder)
    assert not torch.equal(parts["video_vae"].decoder["input"].weight, before)


def test_written_parts_make_the_model_again(tmp_path):
    torch.manual_seed(0)
    config = plan.model_config(tiny=True)
    parts = folder.modules(config)
    states = {name: part.state_dict() for name, part in parts.items()}
    assert folder.write(tmp_path / "w", config, states, "1 s", [{"phase": "x"}])
    sizes = [path.stat().st_size for path in sorted((tmp_path / "w").iterdir())]
    assert len(sizes) == 3 and max(sizes) < 1.3 * min(sizes)
    found, again, known = folder.read(tmp_path / "w")
    assert found == config and known == {"rows": [{"phase": "x"}], "stamps": ["1 s"]}
    for name, part in parts.items():
        for key, value in part.state_dict().items():
            torch.testing.assert_close(again[name][key], value, rtol=1e-3, atol=1e-6)
    model = folder.join(tmp_path / "w", tmp_path / "m")
    import syncflow

    loaded = syncflow.load(model, device="cpu")
    torch.testing.assert_close(
        loaded.ddit.state_dict(), states["ddit"], rtol=1e-3, atol=1e-6, check_dtype=False
    )
    config_again, states_again, _ = folder.read(model)
    assert config_again == config and set(states_again) == set(folder.PARTS)


def test_weights_that_are_not_finite_are_not_written_and_missing_files_are_named(tmp_path):
    config = plan.model_config(tiny=True)
    parts = folder.modules(config)
    states = {name: part.state_dict() for name, part in parts.items()}
    assert folder.write(tmp_path, config, states, "1 s", [])
    states["ddit"]["audio_tower.final_linear.bias"][0] = float("nan")
    assert not folder.write(tmp_path, config, states, "2 s", [])
    assert folder.read(tmp_path)[2]["stamps"] == ["1 s"]
    (tmp_path / "part-2.safetensors").unlink()
    with pytest.raises(ValueError, match="2 of 3 files"):
        folder.read(tmp_path)
    with pytest.raises(FileNotFoundError, match="neither a model nor"):
        folder.read(tmp_path / "nothing")


def test_the_full_model_fits_what_may_travel_and_what_may_be_shipped():
    config = plan.model_config()
    with torch.device("meta"):
        parts = {name: part for name, part in folder.modules(config).items()}
    numbers = sum(v.numel() for part in parts.values() for v in part.state_dict().values())
    assert 2 * numbers < 40e6
    assert 2 * numbers / folder.FILES < 15 * 2**20
