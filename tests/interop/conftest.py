"""The golden files: numbers of Open-Sora v1.2's own code, where they are present."""

import json
import os
import warnings
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
FOLDER = Path(os.environ.get("SYNCFLOW_GOLDEN", REPOSITORY.parent / "shared" / "golden"))


@pytest.fixture(scope="session")
def golden() -> Path:
    """Folder of the golden files: $SYNCFLOW_GOLDEN, or ../shared/golden beside the repository."""
    if not (FOLDER / "opensora_v1_2").is_dir():
        reason = (
            f"NO GOLDEN FILES at {FOLDER}: parity with Open-Sora v1.2 is NOT checked "
            "(set SYNCFLOW_GOLDEN)"
        )
        warnings.warn(reason, stacklevel=1)
        pytest.skip(reason)
    return FOLDER / "opensora_v1_2"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """``tower_case`` and ``vae_case``: as many as the golden files hold."""
    for name, part in (("tower_case", "stdit3"), ("vae_case", "vae")):
        if name in metafunc.fixturenames:
            meta = FOLDER / "opensora_v1_2" / part / "meta.json"
            count = len(json.loads(meta.read_text())["cases"]) if meta.exists() else 1
            metafunc.parametrize(name, range(count))


def relative_error(ours, theirs) -> float:
    """Largest error in units of the largest value."""
    assert ours.shape == theirs.shape
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()
