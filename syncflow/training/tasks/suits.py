"""Whether clips suit a flow task: its processes and the widths of its model."""

from __future__ import annotations

from syncflow.training.datasets.buckets import Bucket
from syncflow.training.distributed import sequence
from syncflow.training.distributed.groups import Group
from syncflow.training.settings import FlowTask


def check(config: FlowTask, bucket: Bucket, group: Group) -> None:
    """Raises ValueError where the processes or the model cannot have its clips."""
    group.rows(bucket.batch_size)
    sequence.check(config.model, bucket.spec, group)
    _check_widths(config, bucket)
    _, height, width = bucket.spec.video_latent_shape
    patch = config.model.video.patch_size
    patches = -(-height // patch[1]) * -(-width // patch[2])
    expected = config.model.audio.upsampler_patches
    if config.train != "video" and expected not in (0, patches):
        raise ValueError(
            f"model.audio.upsampler_patches is {expected}, but {bucket.name} (height x width x "
            f"frames) has {patches} patches per frame; 0 turns the aligned path off"
        )


def _check_widths(config: FlowTask, bucket: Bucket) -> None:
    model, theirs = config.model, bucket.latents.channels
    sizes = [
        ("video.in_channels", model.video.in_channels, theirs["video"], "video channels"),
        (
            "video.caption_channels",
            model.video.caption_channels,
            theirs["text"],
            "numbers per text token",
        ),
    ]
    if config.train != "video":
        ours = model.audio.in_channels
        sizes.append(("audio.in_channels", ours, theirs["audio"], "audio channels"))
    for name, has, needs, what in sizes:
        if has != needs:
            raise ValueError(
                f"model.{name} is {has}, but the latents of {bucket.name} (height x width x "
                f"frames) have {needs} {what}; set it to {needs}, or train on other latents"
            )
