"""A picture that is given: a film to put sound to, a first frame, a clip to reconstruct."""

import pytest
import torch

from syncflow import flow
from syncflow.clip import Clip, ClipSpec
from syncflow.generation import noise, pipeline, request
from syncflow.generation.sampler import encode_captions
from tests.small_model import CONFIG, PROMPT, build, picture, run


@pytest.fixture(scope="module")
def model() -> pipeline.SyncFlow:
    return build()


@pytest.mark.parametrize("v2a", ["one-pass", "paper"])
def test_a_given_video_comes_back_unchanged_and_shapes_the_sound(model, v2a: str) -> None:
    video = picture(16)
    clip = run(model, video=video, v2a=v2a)
    assert torch.equal(clip.video, video) and len(clip.audio) == 48000
    assert not torch.equal(run(model, video=picture(16, seed=1), v2a=v2a).audio, clip.audio)


def test_a_given_clip_of_another_rate_and_size_is_fitted(model) -> None:
    source = Clip(picture(50, 48), torch.zeros(10), fps=25)
    clip = run(model, "", video=source)
    assert torch.equal(clip.video, source.video) and clip.fps == 25
    assert len(clip.audio) == 96000 and clip.prompt is None
    odd = run(model, video=picture(18))  # the model sees 20 frames, the clip has 18
    assert torch.equal(odd.video, picture(18)) and len(odd.audio) == 54000
    half = run(model, video=picture(18), seconds=0.5)
    assert torch.equal(half.video, picture(18)[:8]) and len(half.audio) == 24000


def test_a_given_file_is_read(model, tmp_path) -> None:
    path = Clip(picture(16), torch.zeros(48000)).save(tmp_path / "in.mp4")
    clip = run(model, video=path)
    assert clip.video.shape == (16, 3, 32, 32) and len(clip.audio) == 48000


def test_a_given_files_picture_is_copied_bit_for_bit(model, tmp_path) -> None:
    """Packets and decoded pictures of the output are the source's, at the source's own rate."""
    import av

    source = Clip(picture(25), torch.zeros(50000), fps=23.976).save(tmp_path / "in.mp4")
    takes = run(model, video=source, audio_takes=2, rank=None)
    out = takes[1].save(tmp_path / "out.mp4")

    def inside(path) -> tuple[list[bytes], list[torch.Tensor]]:
        with av.open(str(path)) as film:
            packets = [bytes(p) for p in film.demux(video=0) if p.size]
        with av.open(str(path)) as film:
            frames = [torch.from_numpy(f.to_ndarray()) for f in film.decode(video=0)]
        return packets, frames

    (packets, frames), (new_packets, new_frames) = inside(source), inside(out)
    assert len(frames) == 25 and new_packets == packets
    assert all(torch.equal(a, b) for a, b in zip(frames, new_frames, strict=True))
    assert abs(len(takes[1].audio) / 48000 - 25 / 23.976) < 1e-3


def test_a_first_frame_stays_through_sampling(model, tmp_path) -> None:
    image = picture(1)[0]
    seen = []
    run(model, image=image, callback=lambda step, x, t: seen.append(x[0][:, :, :1].clone()))
    assert len(seen) == 6 and all(torch.equal(s, seen[0]) for s in seen)
    frames = request.first_frame(image, ClipSpec(1.0, height=32, width=32))
    assert torch.equal(seen[0], model.codecs.encode_video([frames]))
    from PIL import Image

    spec = ClipSpec(1.0, height=32, width=32)
    pil = Image.fromarray(image.permute(1, 2, 0).numpy())
    assert torch.equal(request.first_frame(pil, spec), frames)
    pil.save(tmp_path / "first.png")
    assert torch.equal(request.first_frame(tmp_path / "first.png", spec), frames)
    still = picture(1).float().mean((2, 3), keepdim=True).byte().expand(8, 3, 32, 32).contiguous()
    film = Clip(still, torch.zeros(24000)).save(tmp_path / "film.mp4")
    close = request.first_frame(film, spec).int() - still[:4].int()
    assert close.abs().max() <= 4


def test_reconstruct_keeps_the_geometry(model) -> None:
    clip = Clip(picture(16), torch.randn(48000).clamp(-1, 1))
    again = model.reconstruct(clip)
    assert again.video.shape == clip.video.shape and again.audio.shape == clip.audio.shape
    with pytest.raises(ValueError, match="48000 Hz, the clip's 16000"):
        model.reconstruct(Clip(picture(16), torch.zeros(16000), sample_rate=16000))


def test_latents_are_denormalised_before_decoding(model) -> None:
    """A given picture's normalised latents decode to what the VAE alone reconstructs."""
    video = picture(16)
    latents = model.codecs.encode_video([video])
    spec = ClipSpec(1.0, height=32, width=32)
    clip = model.codecs.clips(latents, torch.zeros(1, 50, 6), ["x"], 1, spec, [])[0]
    expected = model.reconstruct(Clip(video, torch.zeros(48000))).video
    assert (clip.video.int() - expected.int()).abs().max() <= 1


def test_fit_crops_the_centre() -> None:
    video = torch.zeros(1, 3, 20, 60, dtype=torch.uint8)
    video[..., 20:40] = 200
    assert (request.fit(video, 10, 10) == 200).all()


def test_one_video_pass_equals_joint_steps_on_clean_video(model) -> None:
    """The cached context gives what recomputing it at every step gives."""
    spec = ClipSpec(1.0, height=32, width=32)
    with torch.inference_mode():
        captions = encode_captions(model.ddit, model.text_encoder, [PROMPT], spec, model.dtype)
        condition = captions.of((0,))
        clean = model.codecs.encode_video([picture()])
        sources = noise.generators([0])
        audio = noise.start(sources, clean.shape[1:], (50, 6), clean.device)[1]
        for t in flow.times(3)[:-1].tolist():
            _, features = model.ddit.video_velocity(clean, torch.ones(1), condition)
            context = model.ddit.audio_context(features, condition)
            audio = (
                audio + model.ddit.audio_velocity(audio, torch.tensor([t]), context, condition) / 3
            )
        mean, std = (torch.tensor(CONFIG[f"latent_{k}_audio"]) for k in ("mean", "std"))
        expected = model.audio_vae.decode(audio * std + mean, num_samples=48000)[0].clamp(-1, 1)
    got = run(model, video=picture(), audio_guidance=1.0).audio
    torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-4)
