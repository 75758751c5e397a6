"""Runs everywhere: the arithmetic that the golden files check where they are present."""

import json

import pytest
from miniature import DIGEST, digest


def test_the_miniature_gives_the_numbers_that_met_the_golden_files():
    expected, found = json.loads(DIGEST.read_text()), digest()
    assert found.keys() == expected.keys()
    for name, numbers in found.items():
        largest = max(map(abs, expected[name]))
        assert numbers == pytest.approx(expected[name], rel=1e-4, abs=1e-4 * largest), name


def test_the_digest_holds_what_the_defects_change_and_is_small():
    expected = json.loads(DIGEST.read_text())
    for name in ("tower", "times", "sample"):
        assert expected[f"{name} default"] != expected[f"{name} opensora-1.2"]
    assert expected["layer 1 default"] == expected["layer 1 opensora-1.2"]
    assert expected["latent, chunks of None"] != expected["latent, chunks of 17"]
    assert DIGEST.stat().st_size < 5000
