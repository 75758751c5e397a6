"""A real browser without a library: Chromium, spoken to through its debugging pipe."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


class Browser:
    """One page of a headless Chromium; a context manager."""

    def __init__(self, profile: Path, url: str) -> None:
        ours = [os.pipe(), os.pipe()]
        # Above 3 and 4, which is where Chromium looks for its ends.
        (their_in, self._in), (self._out, their_out) = (
            tuple(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 20) for end in pipe) for pipe in ours
        )
        for pipe in ours:
            for end in pipe:
                os.close(end)

        def hand_over() -> None:
            os.dup2(their_in, 3)
            os.dup2(their_out, 4)

        command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--mute-audio",
                   "--disable-dev-shm-usage", "--remote-debugging-pipe",
                   f"--user-data-dir={profile}", "about:blank"]  # fmt: skip
        self._process = subprocess.Popen(
            command, preexec_fn=hand_over, pass_fds=(3, 4),
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(their_in)
        os.close(their_out)
        self._number, self._rest, self._session = 0, b"", None
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        attached = self.send("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        self.send("Page.enable")
        self.send("Page.navigate", url=url)

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._in)
        os.close(self._out)

    def send(self, method: str, **given: Any) -> dict[str, Any]:
        """A command of the DevTools protocol; returns its result."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": given}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._in, json.dumps(message).encode() + b"\0")
        while True:
            while b"\0" not in self._rest:
                piece = os.read(self._out, 1 << 16)
                if not piece:
                    raise RuntimeError("Chromium has ended")
                self._rest += piece
            text, _, self._rest = self._rest.partition(b"\0")
            answer = json.loads(text)
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]

    def value(self, script: str) -> Any:
        """What an expression of JavaScript gives on the page."""
        done = self.send("Runtime.evaluate", expression=script, returnByValue=True)
        if "exceptionDetails" in done:
            raise RuntimeError(json.dumps(done["exceptionDetails"])[:500])
        return done["result"].get("value")

    def wait(self, script: str, seconds: float = 120) -> None:
        """Waits until an expression is true of the page."""
        end = time.monotonic() + seconds
        while not self.value(f"!!({script})"):
            if time.monotonic() > end:
                raise TimeoutError(f"never true: {script}")
            time.sleep(0.2)
