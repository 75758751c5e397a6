"""A page to try a model on: a sentence becomes a clip, a picture goes on, a video gets its sound.

Gradio is imported when the page is built; it is the extra ``demo``.
"""

from __future__ import annotations

import html
import os
import re
import signal
import threading
import uuid
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from syncflow.faults import Cancelled
from syncflow.generation.pipeline import SyncFlow
from syncflow.serving.studio import (
    KEPT_SECONDS,
    MOST_BYTES,
    MOST_LETTERS,
    MOST_SEED,
    MOST_STEPS,
    MOST_TAKES,
    MOST_TIMES,
    Look,
    Report,
    Studio,
    Take,
)
from syncflow.serving.watching import Make, while_made

if TYPE_CHECKING:
    from gradio import Blocks
    from PIL.Image import Image


#: Requests that wait at once; more are told to come again.
MOST_WAITING = 16

_DICE = f"() => Math.floor(Math.random() * {2**31})"


def page(studio: Studio) -> Blocks:
    """The Gradio page of a studio."""
    import gradio as gr

    # Gradio keeps uploads and answers below this folder, which the studio sweeps and removes.
    os.environ["GRADIO_TEMP_DIR"] = str(studio.uploads)
    config = studio.model.config
    vocabulary = config.vocabulary
    examples = vocabulary.examples if vocabulary else []
    title = f"syncflow: {config.name}"

    def shown(takes: list[Take], remarks: list[str]) -> list[object]:
        """Values of players, drawings, lines and preview, hidden where there is no such take."""
        cells: list[object] = [_text(" ".join(remarks))]
        for number in range(MOST_TAKES):
            there = number < len(takes)
            take = takes[number] if there else None
            cells += [
                gr.Video(str(take.clip) if take else None, visible=there),
                gr.Image(str(take.plot) if take else None, visible=there),
                gr.Markdown(_text(take.told) if take else "", visible=there),
            ]
        return [*cells, gr.Image(visible=False)]

    def previewed(picture: Image) -> list[object]:
        """The page while a clip is made: a picture, and all else as it is."""
        return [gr.skip()] * (1 + 3 * MOST_TAKES) + [gr.Image(picture, visible=True)]

    def answer(
        client: str | None,
        make: Make,
        report: Report,
        prompt: str,
        seconds: float | None = None,
        video: str | None = None,
        image: str | None = None,
    ) -> Iterator[list[object]]:
        """Previews, then the takes; a mistake of the user's as a line on the page instead of a
        traceback."""
        try:
            with studio.stoppable(client) as stop:
                for found in while_made(make, report, stop):
                    if isinstance(found, list):
                        yield shown(found, studio.remarks(prompt, seconds, video, image))
                    else:
                        yield previewed(found)
        except Cancelled:
            yield shown([], ["Stopped."])
        except (ValueError, OSError) as error:
            why = html.escape(_without_folders(error, studio), quote=False)
            raise gr.Error(why, print_exception=False) from None

    def text_to_clip(
        prompt: str,
        seed: float,
        takes: float,
        guidance: float,
        steps: float,
        seconds: float,
        without: str,
        client: str | None,
        contacts: str = "",
        progress: Report = gr.Progress(),  # noqa: B008 - Gradio's way to ask for it
    ) -> Iterator[list[object]]:
        def make(report: Report, look: Look, stop: threading.Event) -> list[Take]:
            return studio.clip(
                prompt,
                report=report,
                look=look,
                stop=stop,
                contacts=contacts,
                seed=seed,
                takes=takes,
                guidance=guidance,
                steps=steps,
                seconds=seconds,
                negative_audio_prompt=without,
            )

        yield from answer(client, make, progress, prompt, seconds)

    def frame_to_clip(
        image: str | None,
        prompt: str,
        seed: float,
        takes: float,
        guidance: float,
        steps: float,
        without: str,
        client: str | None,
        progress: Report = gr.Progress(),  # noqa: B008
    ) -> Iterator[list[object]]:
        def make(report: Report, look: Look, stop: threading.Event) -> list[Take]:
            return studio.from_frame(
                image,
                prompt,
                report=report,
                look=look,
                stop=stop,
                seed=seed,
                takes=takes,
                guidance=guidance,
                steps=steps,
                negative_audio_prompt=without,
            )

        yield from answer(client, make, progress, prompt, image=image)

    def video_to_audio(
        video: str | None,
        prompt: str,
        seed: float,
        takes: float,
        without: str,
        client: str | None,
        progress: Report = gr.Progress(),  # noqa: B008
    ) -> Iterator[list[object]]:
        def make(report: Report, look: Look, stop: threading.Event) -> list[Take]:
            return studio.sound(
                video,
                prompt,
                report=report,
                look=look,
                stop=stop,
                seed=seed,
                takes=takes,
                negative_audio_prompt=without,
            )

        yield from answer(client, make, progress, prompt, video=video)

    def prompt_box(label: str = "Prompt") -> gr.Textbox:
        return gr.Textbox("", label=label, lines=2, max_length=MOST_LETTERS)

    def seed_and_takes() -> tuple[gr.Number, gr.Slider]:
        with gr.Row():
            seed = gr.Number(0, label="Seed", precision=0, minimum=0, maximum=MOST_SEED)
            dice = gr.Button("\N{GAME DIE} Random seed", size="sm")
            dice.click(None, outputs=seed, js=_DICE, api_visibility="private")
        return seed, gr.Slider(1, MOST_TAKES, 1, step=1, label="Takes", info="of the sound")

    def sampling() -> tuple[gr.Slider, gr.Slider]:
        defaults = config.sampling
        guidance = gr.Slider(1, 8, defaults.guidance, step=0.5, label="Guidance")
        return guidance, gr.Slider(1, MOST_STEPS, defaults.steps, step=1, label="Steps")

    def negative() -> gr.Textbox:
        return gr.Textbox("", label="Negative audio prompt", max_length=MOST_LETTERS)

    with gr.Blocks(title=title, analytics_enabled=False) as blocks:
        gr.Markdown(
            f"# {_text(title)}\nGenerates video and audio together from a prompt, from a first "
            f"frame, or audio for a video. Files are deleted after {KEPT_SECONDS / 60:g} minutes."
        )
        runs: list[
            tuple[
                gr.Button,
                Callable[..., Iterator[list[object]]],
                list[gr.components.Component],
                str,
            ]
        ] = []
        client = gr.State(lambda: uuid.uuid4().hex)  # of each visitor of the page
        with gr.Tab("Text to clip"):
            prompt = prompt_box()
            prompt.value = examples[0] if examples else ""
            if examples:
                gr.Examples([[text] for text in examples], [prompt], label="Examples")
            seed, takes = seed_and_takes()
            guidance, steps = sampling()
            trained = config.geometry.seconds
            seconds = gr.Slider(
                trained / 4, MOST_TIMES * trained, trained, step=trained / 4, label="Seconds"
            )
            inputs: list[gr.components.Component] = [
                prompt,
                seed,
                takes,
                guidance,
                steps,
                seconds,
                negative(),
                client,
            ]
            if config.ddit.event_bins:
                label = "Contacts: when things touch, in seconds, such as 0.4, 1.1"
                inputs.append(gr.Textbox("", label=label, max_length=MOST_LETTERS))
            runs.append(
                (gr.Button("Generate", variant="primary"), text_to_clip, inputs, "text_to_clip")
            )
        with gr.Tab("First frame"):
            image = gr.Image(label="First frame", type="filepath", sources=["upload"])
            inputs = [image, prompt_box(), *seed_and_takes(), *sampling(), negative(), client]
            runs.append(
                (gr.Button("Generate", variant="primary"), frame_to_clip, inputs, "first_frame")
            )
        with gr.Tab("Video to audio"):
            video = gr.Video(label="Video", sources=["upload"])
            inputs = [video, prompt_box("Prompt (optional)"), *seed_and_takes(), negative(), client]
            button = gr.Button("Generate audio", variant="primary")
            runs.append((button, video_to_audio, inputs, "video_to_audio"))
        stop = gr.Button("Stop")
        stop.click(studio.stop, client, queue=False, api_name="stop")
        preview = gr.Image(label="Preview", visible=False, format="png", interactive=False)
        remarks = gr.Markdown()
        outputs: list[gr.components.Component] = [remarks]
        with gr.Row():
            for number in range(1, MOST_TAKES + 1):
                with gr.Column(min_width=200):
                    first = number == 1
                    outputs += [
                        gr.Video(label=f"Take {number}", autoplay=first, visible=first),
                        gr.Image(
                            label="Sync: contacts seen (red), onsets heard (blue)",
                            visible=first,
                            type="filepath",
                        ),
                        gr.Markdown(visible=first),
                    ]
        outputs.append(preview)
        if vocabulary:
            with gr.Accordion("Vocabulary", open=False):
                words = vocabulary.words.items()
                rows = [f"| {_text(name)} | {_text(', '.join(said))} |" for name, said in words]
                knows = f"The model knows {_text(vocabulary.summary)}."
                gr.Markdown("\n".join([knows, "", "| | |", "|---|---|", *rows]))
        for button, function, inputs, name in runs:
            # One queue for all: the model makes one clip at a time.
            button.click(
                function,
                inputs,
                outputs,
                api_name=name,
                concurrency_id="model",
                concurrency_limit=1,
            )
    # Nothing goes past the queue.
    return blocks.queue(max_size=MOST_WAITING, api_open=False)


def _text(text: str) -> str:
    """Text that Markdown shows as it is."""
    return re.sub(r"([\\`*_{}\[\]()#+!|~$-])", r"\\\1", html.escape(text, quote=False))


def _without_folders(error: Exception, studio: Studio) -> str:
    """One line for a stranger: no folder of the server is named."""
    text = " ".join(str(error).split())
    return re.sub(rf"{re.escape(str(studio.folder))}(?:/[^\s/'\"]+)*/", "", text)


def launch(blocks: Blocks, host: str, port: int) -> Blocks:
    """Starts a page's server and returns the page; ``close()`` of it stops the server.

    Raises:
        OSError: the port is taken.
    """
    blocks.launch(
        server_name=host,
        server_port=port,
        share=False,
        show_error=False,  # what is no mistake of the user's is told to the server alone
        quiet=True,
        max_file_size=MOST_BYTES,
        prevent_thread_lock=True,
    )
    return blocks


def serve(model: SyncFlow, host: str = "127.0.0.1", port: int = 7860) -> None:
    """Serves the page until interrupted or terminated; on this machine alone unless ``host`` says
    otherwise.

    Raises:
        OSError: the port is taken.
    """
    stopped = threading.Event()
    before = {}
    if threading.current_thread() is threading.main_thread():
        before[signal.SIGTERM] = signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    studio = Studio(model)
    try:
        blocks = launch(page(studio), host, port)
        try:
            print(f"http://{host}:{port} (Ctrl-C stops it)", flush=True)
            stopped.wait()
        finally:
            blocks.close(verbose=False)
    finally:
        studio.close()
        for number, handler in before.items():
            signal.signal(number, handler)
