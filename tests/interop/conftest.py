"""Where the golden files are."""

import os
import warnings
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def golden() -> Path:
    """Folder of the golden files: $SYNCFLOW_GOLDEN, or ../shared/golden beside the repository."""
    folder = Path(os.environ.get("SYNCFLOW_GOLDEN", REPOSITORY.parent / "shared" / "golden"))
    if not (folder / "opensora_v1_2").is_dir():
        reason = (
            f"NO GOLDEN FILES at {folder}: parity with Open-Sora v1.2 is NOT checked "
            "(set SYNCFLOW_GOLDEN)"
        )
        warnings.warn(reason, stacklevel=1)
        pytest.skip(reason)
    return folder / "opensora_v1_2"
