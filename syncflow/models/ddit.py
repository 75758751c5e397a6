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

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from syncflow.clip import ClipSpec
from syncflow.config import DDiTConfig
from syncflow.models.adaptor import Adaptor, Clock, TemporalUpsampler
from syncflow.models.audio_tower import AudioContext, AudioState, AudioText, AudioTower
from syncflow.models.beside import Beside
from syncflow.models.layers import ModuleList, is_plain
from syncflow.models.video_embeddings import EventEmbedder
from syncflow.models.video_tower import TextContext, VideoTower
from syncflow.ops.cross_attention import KeysValues


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
        self.adaptors = ModuleList(
            Adaptor(config.adaptor, video.hidden_size, audio.hidden_size)
            for _ in range(depth if reads_video else 0)
        )
        self.upsampler = None
        if reads_video and audio.upsampler_patches:
            self.upsampler = TemporalUpsampler(
                video.hidden_size, audio.upsampler_patches, audio.upsampler_width, audio.hidden_size
            )
        self.audio_tower = AudioTower(audio, depth, video.hidden_size)
        self.event_embedder = None
        if config.event_bins:
            self.event_embedder = EventEmbedder(config.event_bins, video.hidden_size)
        self._folded: list[tuple[Tensor, Tensor]] = []

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self._folded.clear()
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]  # PyTorch types none of these
        return self

    def _load_from_state_dict(self, *arguments: object, **named: object) -> None:
        self._folded.clear()
        super()._load_from_state_dict(*arguments, **named)

    @torch.no_grad()
    def fold(self) -> None:
        """For inference: the last Linear of every adaptor and the keys and values that a layer of
        the sound makes of it become one product, of weights computed here in float32. Weights
        that change later are read again by another call; loading a state dict and moving the
        model undo it."""
        self._folded.clear()
        folded = []
        for adaptor, layer in zip(self.adaptors, self.audio_tower.layers, strict=False):
            first, second = adaptor.linear, layer.cross_attn.kv_linear
            if type(first) is not nn.Linear or type(second) is not nn.Linear:
                return
            weight, dtype = second.weight.float(), second.weight.dtype
            bias = weight @ first.bias.float() + second.bias.float()
            folded.append(((weight @ first.weight.float()).to(dtype), bias.to(dtype)))
        self._folded += folded

    def _hears(self, index: int, features_BTSC: Tensor, clock: Clock) -> KeysValues:
        """Keys and values of layer ``index`` of the sound for the picture's features."""
        adaptor, tower = self.adaptors[index], self.audio_tower
        attn = tower.layers[index].cross_attn
        if not (self._folded and is_plain(adaptor.linear) and is_plain(attn.kv_linear)):
            return tower.reads_video(index, adaptor(features_BTSC), clock)
        kv_BMC = F.linear(adaptor.tokens(features_BTSC), *self._folded[index])
        return tower.turns(attn.split(kv_BMC), clock)

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
        latent_mask: Tensor | None = None,
        events: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Velocities of noised latents.

        Args:
            video_x_t: [B, C, T, H, W].
            audio_x_t: [B*K, A, D], the K draws of one video side by side.
            t_video, t_audio: flow times [B] and [B*K], 0 = noise and 1 = data.
            text, text_mask: the text encoder's tokens [B, L, E] and [B, L], True = a token.
            spec: the clips' geometry.
            frame_mask: [B, T], False = this latent frame is data already.
            latent_mask: [B*K, A], False = this audio latent is data already.
            events: as in ``read``.

        Returns:
            velocities in float32, of the shapes of ``video_x_t`` and ``audio_x_t``.
        """
        condition = self.prepare(text, text_mask, spec, events)
        v_video, features = self.video_velocity(video_x_t, t_video, condition, frame_mask)
        context = self.audio_context(features, condition)
        v_audio = self.audio_velocity(
            audio_x_t, t_audio, context, condition, latent_mask=latent_mask
        )
        return v_video, v_audio

    def prepare(
        self,
        text: Tensor,
        text_mask: Tensor | None,
        spec: ClipSpec,
        events: Tensor | None = None,
    ) -> Condition:
        """Once per prompt; the arguments are those of ``read``."""
        video = self.read(text, text_mask, spec, events)
        return Condition(video, self.audio_tower.prepare(video.tokens_BLC, text_mask), spec)

    def read(
        self,
        text: Tensor,
        text_mask: Tensor | None,
        spec: ClipSpec,
        events: Tensor | None = None,
    ) -> TextContext:
        """What the picture knows of its captions, and of when things touch.

        Args:
            text, text_mask, spec: as in ``forward``.
            events: when things touch, [B, N] seconds from the clip's start, NaN where a sample
                has fewer than N; None, and NaN alone, say nothing about when things happen.

        Raises:
            ValueError: times for a model that was made without.
        """
        context = self.video_tower.prepare(text, text_mask)
        if events is None:
            return context
        if self.event_embedder is None:
            raise ValueError("times of contacts, and this model takes none (event_bins is 0)")
        return replace(context, told_BTC=self.event_embedder(events, spec))

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

    def joint_velocity(
        self,
        video_x_t: Tensor,
        t_video: Tensor,
        audio_x_t: Tensor,
        t_audio: Tensor,
        condition: Condition,
        frame_mask: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Once per step of both: ``video_velocity``, ``audio_context`` and ``audio_velocity``, each
        layer of the sound as soon as the picture's is there, beside the picture's next one where
        the device has streams for that."""
        spec, tower = condition.spec, self.audio_tower
        clock, beside = tower.clock(spec), Beside(video_x_t.device)
        rotations = (clock.audio_AP2, clock.cross_AP2)
        sound: list[AudioState] = []

        def hear(index: int, features_BTSC: Tensor) -> None:
            with beside.behind():
                if not index:
                    aligned = self.upsampler(features_BTSC, spec) if self.upsampler else None
                    sound.append(tower.start(audio_x_t, t_audio, aligned))
                keys_values = self._hears(index, features_BTSC, clock)
                layer = (keys_values, None, rotations, condition.audio)
                sound[0] = tower.step(index, sound[0], *layer)

        # The features are held until the streams are one again: their memory may not be used anew.
        v_video, features = self.video_tower.step(
            video_x_t,
            t_video,
            condition.video,
            fps=spec.fps,
            height=spec.height,
            width=spec.width,
            frame_mask=frame_mask,
            on_layer=hear,
        )
        with beside.behind():
            v_audio = tower.finish(sound[0])
        beside.join()
        del features
        return v_video, v_audio

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
        latent_mask: Tensor | None = None,
    ) -> Tensor:
        """Once per audio step: the velocity [B*K, A, D]. ``repeat``, where given, must be K;
        ``latent_mask`` [B*K, A], False = this latent is data already."""
        velocity_BAD: Tensor = self.audio_tower(
            x_t, t, context, condition.audio, repeat, latent_mask
        )
        return velocity_BAD
