"""The dual diffusion transformer: text to the velocities of picture and sound (paper section 3.2).

    text --------------+----------------------------+
                       v                            v
    video_x_t --> [spatial, temporal] x depth   [audio layer] x depth <-- audio_x_t
                       |   features_l   adaptor_l   ^
                       +--------------> [    ] -----+

The video never reads the audio. So a video pass serves any number of audio draws, and a video that
is finished (its flow time is 1) is read once for all audio steps.

Axis letters: B batch, K audio draws per video, T latent frames, S patches, A audio latents,
L text tokens, E and C widths.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from syncflow.clip import ClipSpec
from syncflow.config import DDiTConfig
from syncflow.models.adaptor import Adaptor, TemporalUpsampler
from syncflow.models.audio_tower import AudioContext, AudioText, AudioTower
from syncflow.models.video_tower import TextContext, VideoTower


@dataclass(frozen=True)
class Condition:
    """Captions ready for both towers, and the clips' geometry: made once per prompt."""

    video: TextContext
    audio: AudioText | None
    spec: ClipSpec

    def select(self, rows: slice | list[int]) -> Condition:
        """The condition of some of the batch."""
        audio = None if self.audio is None else self.audio.select(rows)
        return Condition(self.video.select(rows), audio, self.spec)


class DDiT(nn.Module):
    """Both towers and the adaptors between them.

    Args:
        config: sizes.
        video_tower: one that exists already, of ``config.video``; a fresh one when not given.
    """

    def __init__(self, config: DDiTConfig, video_tower: VideoTower | None = None) -> None:
        super().__init__()
        video, audio, depth = config.video, config.audio, config.video.depth
        self.config = config
        self.video_tower = VideoTower(video) if video_tower is None else video_tower
        reads_video = audio.condition != "text"
        self.adaptors = nn.ModuleList(
            Adaptor(config.adaptor, video.hidden_size, audio.hidden_size)
            for _ in range(depth if reads_video else 0)
        )
        self.upsampler = None
        if reads_video and audio.upsampler_patches:
            self.upsampler = TemporalUpsampler(
                video.hidden_size, audio.upsampler_patches, audio.upsampler_width, audio.hidden_size
            )
        self.audio_tower = AudioTower(audio, depth, video.hidden_size)

    def forward(
        self,
        video_x_t: Tensor,
        audio_x_t: Tensor,
        t_video: Tensor,
        t_audio: Tensor,
        text: Tensor,
        text_mask: Tensor | None,
        spec: ClipSpec,
        frame_mask: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Velocities of noised latents.

        Args:
            video_x_t: [B, C, T, H, W].
            audio_x_t: [B*K, A, D], the K draws of one video side by side.
            t_video, t_audio: flow times [B] and [B*K], 0 = noise and 1 = data.
            text, text_mask: the text encoder's tokens [B, L, E] and [B, L], True = a token.
            spec: the clips' geometry.
            frame_mask: [B, T], False = this latent frame is data already.

        Returns:
            velocities in float32, of the shapes of ``video_x_t`` and ``audio_x_t``.
        """
        condition = self.prepare(text, text_mask, spec)
        v_video, features = self.video_velocity(video_x_t, t_video, condition, frame_mask)
        context = self.audio_context(features, condition)
        v_audio = self.audio_velocity(audio_x_t, t_audio, context, condition)
        return v_video, v_audio

    def prepare(self, text: Tensor, text_mask: Tensor | None, spec: ClipSpec) -> Condition:
        """Once per prompt."""
        video = self.video_tower.prepare(text, text_mask)
        return Condition(video, self.audio_tower.prepare(video.tokens_BLC, text_mask), spec)

    def video_velocity(
        self, x_t: Tensor, t: Tensor, condition: Condition, frame_mask: Tensor | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """Once per video step: the velocity and the features [B, T, S, C] of every layer."""
        spec = condition.spec
        return self.video_tower.step(
            x_t,
            t,
            condition.video,
            fps=spec.fps,
            height=spec.height,
            width=spec.width,
            frame_mask=frame_mask,
        )

    def audio_context(self, features: list[Tensor], condition: Condition) -> AudioContext:
        """Once per video pass: what the audio layers attend to."""
        tokens = [adapt(x) for adapt, x in zip(self.adaptors, features, strict=False)]
        aligned = self.upsampler(features[0], condition.spec) if self.upsampler else None
        return self.audio_tower.context(tokens, condition.spec, condition.audio, aligned)

    def audio_velocity(
        self,
        x_t: Tensor,
        t: Tensor,
        context: AudioContext,
        condition: Condition,
        repeat: int | None = None,
    ) -> Tensor:
        """Once per audio step: the velocity [B*K, A, D]. ``repeat``, where given, must be K."""
        return self.audio_tower(x_t, t, context, condition.audio, repeat)
