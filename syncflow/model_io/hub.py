"""Files to and from the Hugging Face hub: huggingface_hub moves them and resumes what broke off.

Nothing that comes from there is executed: of a repository only plain data is fetched, and pickles,
which can run code when they are read, only where a caller asks for them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

#: Endings of the files that are data and nothing else.
DATA = ("*.json", "*.safetensors", "*.md", "*.model", "*.txt")
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")

_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def is_id(name: str) -> bool:
    """Whether ``name`` can be a repository's: owner/name."""
    return _ID.fullmatch(name) is not None


def fetch(
    repo_id: str, revision: str | None = None, patterns: Sequence[str] = DATA, what: str = "model"
) -> Path:
    """The local folder of a repository's files, downloaded where they are not there yet.

    The folder's name is the commit.

    Raises:
        OSError: the hub does not give it, or a transfer broke off (calling again resumes it).
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        folder = snapshot_download(repo_id, revision=revision, allow_patterns=list(patterns))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        at = f" at revision '{revision}'" if revision else ""
        reason = str(error).strip().splitlines()[0]
        raise OSError(
            f"unknown {what} '{repo_id}'{at}: no such folder, and the hub cannot provide it "
            f"({reason})"
        ) from error
    return Path(folder)


def upload(
    folder: Path,
    repo_id: str,
    *,
    revision: str | None = None,
    private: bool = False,
    token: str | None = None,
    message: str = "Add a syncflow model",
) -> str:
    """Puts a folder's files into a repository, which is made where it is missing.

    Returns:
        the address of the commit.

    Raises:
        ValueError: ``repo_id`` is no repository's name. OSError: the hub refuses.
    """
    if not is_id(repo_id):
        raise ValueError(f"'{repo_id}' is not a hub id; those have the form owner/name")
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    api = HfApi(token=token)
    try:
        api.create_repo(repo_id, private=private, exist_ok=True)
        if revision is not None:
            api.create_branch(repo_id, branch=revision, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repo_id, folder_path=folder, revision=revision, commit_message=message
        )
    except (HfHubHTTPError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise OSError(f"the hub refused '{repo_id}' ({reason})") from error
    return commit.commit_url
