"""T5 as a guest: in memory only while it encodes, and what it said is kept on disk.

T5-v1.1-XXL takes 9.5 GB in bfloat16, more than everything else in a model together, and is needed
once per prompt. A prompt that was encoded before does not load it at all.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from syncflow.config import T5TextConfig, paths
from syncflow.model_io import hub, tensors
from syncflow.models.text.encoder import TextEncoder

_WHOLE, _BLOCK, _BLOCKS = 1 << 20, 1 << 12, 64


class PromptEncoder:
    """``TextEncoder.encode`` of a T5 that comes and goes.

    Args:
        config: kind "t5"; its ``name_or_path`` may be a folder inside ``folder``.
        folder: of the model, where there is one.
        device: that T5 visits.
        cache: folder of the embeddings; None = ``cache_folder()``.
    """

    def __init__(
        self,
        config: T5TextConfig,
        folder: Path | None = None,
        device: torch.device | str = "cpu",
        cache: Path | None = None,
    ) -> None:
        self.config, self.model_folder, self.device = config, folder, device
        self.cache = cache_folder() if cache is None else cache
        self._fingerprint: str | None = None
        self._folder: Path | None = None

    def to(self, device: torch.device | str) -> PromptEncoder:
        """Where T5 goes the next time."""
        self.device = device
        return self

    @property
    def folder(self) -> Path:
        """Of T5: inside the model's, of its own, or fetched from the hub."""
        if self._folder is None:
            name = self.config.name_or_path
            # A config may come from a hub: within the model's folder it names a neighbour, no more.
            inside = self.model_folder / name if self.model_folder is not None else None
            if inside is not None and Path(name).name == name and inside.is_dir():
                self._folder = inside
            elif Path(name).expanduser().is_dir():
                self._folder = Path(name).expanduser()
            elif hub.is_id(name):
                self._folder = hub.fetch(name, self.config.revision, what="text encoder")
            else:
                raise FileNotFoundError(
                    f"no text encoder at '{name}': it is neither a folder nor a hub id"
                )
        return self._folder

    @property
    def fingerprint(self) -> str:
        """Hash of what decides an embedding: the encoder's files and how they are used.

        Of files over 1 MiB the size, the first MiB and blocks in between are read, not all.
        """
        if self._fingerprint is None:
            config = self.config
            digest = hashlib.sha256()
            digest.update(f"{config.max_length} {config.clean_caption} {config.precision}".encode())
            for path in sorted(p for p in self.folder.iterdir() if p.is_file()):
                if any(path.match(pattern) for pattern in hub.DATA) and path.suffix != ".md":
                    digest.update(f"{path.name} {path.stat().st_size}".encode())
                    digest.update(_sample(path))
            self._fingerprint = digest.hexdigest()
        return self._fingerprint

    @torch.inference_mode()
    def encode(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Embeddings [B, L, W], zeros where there is no token, and mask [B, L]; on ``device``.

        Prompts are encoded one by one: an embedding then does not depend on its neighbours.

        Raises:
            ValueError: ``texts`` is empty or a single string.
        """
        if isinstance(texts, str) or not texts:
            raise ValueError(f"encode takes a non-empty list of strings, got {texts!r}")
        rows = {text: self._read(text) for text in texts}
        missing = [text for text, row in rows.items() if row is None]
        if missing:
            encoder = self._load()
            for text in missing:
                tokens_1LW, mask_1L = encoder.encode([text])
                row = tokens_1LW[mask_1L].cpu()
                rows[text] = row
                self._write(text, row)
            del encoder
            self._release()
        tokens = [row.to(self.device) for row in map(rows.get, texts) if row is not None]
        lengths = torch.tensor([len(row) for row in tokens], device=self.device)
        mask_BL = torch.arange(int(lengths.max()), device=self.device) < lengths[:, None]
        return torch.nn.utils.rnn.pad_sequence(tokens, batch_first=True), mask_BL

    def _load(self) -> TextEncoder:
        config = self.config.model_copy(update={"name_or_path": str(self.folder)})
        return TextEncoder(config).eval().requires_grad_(False).to(self.device)

    def _release(self) -> None:
        gc.collect()
        if torch.device(self.device).type == "cuda":
            torch.cuda.empty_cache()

    def _path(self, text: str) -> Path | None:
        if self.cache is None:
            return None
        name = hashlib.sha256(text.encode()).hexdigest()
        return self.cache / self.fingerprint[:32] / f"{name}.safetensors"

    def _read(self, text: str) -> Tensor | None:
        path = self._path(text)
        if path is None or not path.is_file():
            return None
        try:
            return tensors.load(path)["tokens_LW"]
        except (ValueError, KeyError, OSError):
            return None  # damaged: encoded and written anew

    def _write(self, text: str, tokens_LW: Tensor) -> None:
        path = self._path(text)
        if path is None:
            return
        with contextlib.suppress(OSError):  # a full or read-only disk costs the cache, not the clip
            path.parent.mkdir(parents=True, exist_ok=True)
            tensors.save(path, {"tokens_LW": tokens_LW})


def cache_folder() -> Path | None:
    """$SYNCFLOW_CACHE, or syncflow/text in the user's cache; None where the variable is empty."""
    return paths.cache("text")


def _sample(path: Path) -> bytes:
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(_WHOLE)
        if size <= _WHOLE:
            return head
        blocks = [head]
        for index in range(_BLOCKS):
            file.seek(index * (size - _BLOCK) // (_BLOCKS - 1))
            blocks.append(file.read(_BLOCK))
    return b"".join(blocks)
