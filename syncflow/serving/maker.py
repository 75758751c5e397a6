"""What turns a request of a client into files: the model, without the network around it."""

from __future__ import annotations

from pathlib import Path

from syncflow.clip import Clip
from syncflow.generation.arguments import Size
from syncflow.generation.events import events
from syncflow.generation.pipeline import SyncFlow
from syncflow.generation.request import geometry
from syncflow.json_types import JsonObject
from syncflow.serving.jobs import Job, Request

#: What a given picture is read as: a still becomes the first frame, a film gets a sound.
_STILL = {"JPEG", "PNG", "WEBP", "BMP"}
#: Of a clip.
MOST_SECONDS = 20.0


class Maker:
    """Makes the clips of a server, one after the other.

    ``name`` is what clients know the model by.
    """

    def __init__(self, model: SyncFlow) -> None:
        self.model, self.name = model, model.config.name

    def shape(self, request: Request) -> tuple[int, int, float]:
        """Width and height in pixels and length in seconds of what is asked for."""
        spec = self.model.config.geometry.spec
        seconds = request.get("seconds") or spec.seconds
        return request.get("width") or spec.width, request.get("height") or spec.height, seconds

    def check(self, request: Request, given: Path | None) -> None:
        """Raises ValueError for a request that cannot be made, before it waits its turn."""
        if given is None and not request.get("prompt", "").strip():
            raise ValueError("empty prompt: describe the clip in one sentence")
        size: Size = {
            "seconds": request.get("seconds"),
            "height": request.get("height"),
            "width": request.get("width"),
        }
        config = self.model.config
        spec = geometry(config, size, given)
        seconds = spec.seconds if given is None or is_still(given) else MOST_SECONDS
        events(request.get("contacts"), 1, bool(config.ddit.event_bins), seconds)
        if given is None:
            return
        from syncflow.data import media
        from syncflow.data.film import opener

        if is_still(given):
            opener.image(given)
        else:
            media.probe(given)

    def __call__(self, job: Job) -> Path:
        """Makes ``job``'s clip: an mp4, and beside it a thumbnail and the sound alone."""
        options: JsonObject = {**job.request}
        prompt, given = options.pop("prompt", ""), options.pop("given", None)
        total = self._steps(job.request)
        if given is not None:
            options["image" if is_still(given) else "video"] = given

        def after(step: int, *_: object) -> None:
            job.advance(0.9 * step / total)

        job.advance(0)
        made = self.model.generate(prompt, progress=False, callback=after, **options)
        clip = made[0] if isinstance(made, list) else made
        return _saved(clip, job.folder / "clip.mp4")

    def _steps(self, request: Request) -> int:
        own = self.model.config.sampling
        steps = request.get("steps") or own.steps
        return steps + (own.audio_steps or steps if own.schedule == "cascade" else 0)


def is_still(path: Path) -> bool:
    """Whether a file is a picture and not a film, by its content."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path, formats=sorted(_STILL)) as image:
            return image.format in _STILL and getattr(image, "n_frames", 1) == 1
    except Image.DecompressionBombError:  # whose size ``opener.image`` refuses
        return True
    except (UnidentifiedImageError, OSError):
        return False


def _saved(clip: Clip, path: Path) -> Path:
    import wave

    from PIL import Image

    clip.save(path)
    middle = clip.video[len(clip.video) // 2].permute(1, 2, 0).numpy()
    Image.fromarray(middle).save(path.with_suffix(".webp"))
    samples = (clip.audio.clamp(-1, 1) * 32767).round().short().numpy()
    with wave.open(str(path.with_suffix(".wav")), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(clip.sample_rate)
        file.writeframes(samples.astype("<i2").tobytes())
    return path
