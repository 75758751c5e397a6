"""What a clip shows while a thread of its own makes it."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

from syncflow.serving.studio import Look, Report, Take

if TYPE_CHECKING:
    from PIL.Image import Image


class Make(Protocol):
    """Makes clips; its arguments are those of ``Studio.clip``."""

    def __call__(self, *, report: Report, look: Look, stop: threading.Event) -> list[Take]: ...


def while_made(make: Make, report: Report, stop: threading.Event) -> Iterator[Image | list[Take]]:
    """The previews of what ``make`` makes in a thread of its own, and last the takes; ``report`` is
    called here. What ``make`` raises is raised.

    Whoever stops asking for more ends it.
    """
    said: queue.SimpleQueue[float | Image | list[Take] | BaseException] = queue.SimpleQueue()

    def work() -> None:
        try:
            said.put(make(report=said.put, look=said.put, stop=stop))
        except BaseException as error:
            said.put(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while True:
            found = said.get()
            if isinstance(found, BaseException):
                raise found
            if isinstance(found, float):
                report(found)
                continue
            yield found
            if isinstance(found, list):
                return
    finally:
        stop.set()
        thread.join()
