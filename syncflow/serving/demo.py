"""A page to try a model on: a sentence becomes a clip, a video gets its sound.

Gradio is imported when the page is built; it is the extra ``demo``.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from syncflow.data import media
from syncflow.generation.pipeline import SyncFlow

#: Soundtracks that can be asked for at once, and seconds of video that are given sound.
MOST_TAKES, MOST_SECONDS = 8, 20.0


class Studio:
    """What the page's buttons do, without the page: files in, files out.

    Every answer is a new file in ``folder``, which ``close`` removes.
    """

    def __init__(self, model: SyncFlow) -> None:
        self.model = model
        self.folder = Path(tempfile.mkdtemp(prefix="syncflow-demo-"))
        self._count = 0

    def close(self) -> None:
        """Removes what was made."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def clip(
        self,
        prompt: str,
        seed: float = 0,
        takes: float = 1,
        guidance: float | None = None,
        negative_sound: str = "",
    ) -> tuple[Path, str]:
        """A clip of a sentence, the best of ``takes``, and a line about it."""
        return self._best(
            prompt,
            seed=_whole(seed),
            audio_takes=min(MOST_TAKES, max(1, _whole(takes))),
            guidance=guidance,
            negative_audio_prompt=negative_sound or None,
        )

    def sound(
        self, video: str | Path | None, prompt: str = "", seed: float = 0, takes: float = 1
    ) -> tuple[Path, str]:
        """The video with a sound made for it, its picture copied bit for bit."""
        if not video:
            raise ValueError("choose a video first")
        seconds = media.probe(video).seconds
        return self._best(
            prompt,
            seed=_whole(seed),
            audio_takes=min(MOST_TAKES, max(1, _whole(takes))),
            video=str(video),
            seconds=MOST_SECONDS if seconds > MOST_SECONDS else None,
        )

    def _best(self, prompt: str, **options: Any) -> tuple[Path, str]:
        given = {name: value for name, value in options.items() if value is not None}
        made = self.model.generate(prompt.strip(), progress=False, **given)
        clips = made if isinstance(made, list) else [made]
        best = clips[0]
        self._count += 1
        path = self.folder / f"{self._count}.mp4"
        try:
            best.save(path)
        except ValueError:  # a codec that mp4 cannot hold
            path = best.save(path.with_suffix(".mkv"))
        told = f"{best.seconds:g} s, seed {given['seed']}"
        if best.scores:
            scores = ", ".join(f"{name} {value:.2f}" for name, value in best.scores.items())
            told += f"; the best of {len(clips)} takes ({scores})"
        return path, told


def _whole(number: float | None) -> int:
    return max(0, int(number or 0))


def page(studio: Studio) -> Any:
    """The Gradio page of a studio."""
    import gradio as gr

    def told(function: Any) -> Any:
        """A mistake of the user's as a line on the page instead of a traceback."""

        def call(*values: Any) -> tuple[str, str]:
            try:
                path, text = function(*values)
            except (ValueError, OSError) as error:
                raise gr.Error(" ".join(str(error).split())) from error
            return str(path), text

        return call

    config = studio.model.config
    title = f"syncflow: {config.name}"
    with gr.Blocks(title=title, analytics_enabled=False) as blocks:
        gr.Markdown(
            f"# {title}\nGenerates video and audio together from a prompt, or audio for a "
            "video. The model card says what the model knows."
        )
        with gr.Tab("Text to clip"), gr.Row():
            with gr.Column():
                prompt = gr.Textbox(
                    "a metal ball bounces three times on concrete", label="Prompt", lines=2
                )
                seed = gr.Number(0, label="Seed", precision=0, minimum=0)
                takes = gr.Slider(1, MOST_TAKES, 1, step=1, label="Takes (the best one is shown)")
                guidance = gr.Slider(1, 8, config.sampling.guidance, step=0.5, label="Guidance")
                without = gr.Textbox("", label="Negative prompt for the audio")
                make = gr.Button("Generate", variant="primary")
            with gr.Column():
                clip = gr.Video(label="Clip", autoplay=True)
                about = gr.Markdown()
            inputs = [prompt, seed, takes, guidance, without]
            make.click(told(studio.clip), inputs, [clip, about], api_name="clip")
        with gr.Tab("Video to audio"), gr.Row():
            with gr.Column():
                video = gr.Video(label="Video", sources=["upload"])
                words = gr.Textbox("", label="Prompt (optional)")
                other_seed = gr.Number(0, label="Seed", precision=0, minimum=0)
                more = gr.Slider(1, MOST_TAKES, 1, step=1, label="Takes (the best one is shown)")
                add = gr.Button("Generate audio", variant="primary")
            with gr.Column():
                result = gr.Video(label="The same picture with audio", autoplay=True)
                told_of = gr.Markdown()
            inputs = [video, words, other_seed, more]
            add.click(told(studio.sound), inputs, [result, told_of], api_name="sound")
    return blocks


def serve(model: SyncFlow, host: str = "127.0.0.1", port: int = 7860) -> None:
    """Serves the page until interrupted; on this machine alone unless ``host`` says otherwise."""
    studio = Studio(model)
    try:
        blocks = page(studio).queue(max_size=16, default_concurrency_limit=1)
        blocks.launch(
            server_name=host,
            server_port=port,
            share=False,
            show_error=True,
            quiet=True,
            allowed_paths=[str(studio.folder)],
            prevent_thread_lock=True,
        )
        print(f"http://{host}:{port} (Ctrl-C stops it)", flush=True)
        blocks.block_thread()
    finally:
        studio.close()
