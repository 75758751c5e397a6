"""The sound of a scene: every contact rings the modes of what it touches, from its exact time on.
Pure numpy.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from syncflow.impacts import noises
from syncflow.impacts.materials import TIMBRES, Timbre
from syncflow.impacts.scene import Contact, Scene

_NOISE, _OUTSIDE = 101, 102
_BLOCK = 512

_THROUGH_A_WALL = dataclasses.replace(
    TIMBRES["wood"], gains=(1.0, 0.4, 0.15, 0.05, 0.0, 0.0), click=0.2, click_cut=500.0
)


def sound(scene: Scene) -> np.ndarray:
    """The clip's sound, float32 [M] in [-1, 1]; sample m is at m / sample_rate seconds; exact
    zeros while nothing sounds.
    """
    mix = np.zeros(scene.num_samples)
    for index, thing in enumerate(scene.things):
        contacts = [c for c in scene.contacts if c.thing == index and c.audible]
        rng = np.random.default_rng([scene.seed, scene.level, _NOISE, index])
        wet_ones = [c for c in contacts if c.kind == "splash"]
        for contact in wet_ones:
            level = min(contact.speed / 3.0, 1.0) * (thing.radius / 0.08) ** 0.5
            noises.splash(mix, contact, level, thing.pitch, scene.sample_rate, rng)
        if contacts and not wet_ones:
            ring(mix, contacts, TIMBRES[thing.material], thing.pitch, scene.sample_rate, rng)
    outside = [c for c in scene.contacts if c.thing < 0 and c.audible]
    if outside or scene.noises:
        _surroundings(mix, scene, outside)
    wet = mix.copy()
    for delay, gain in scene.room:
        shift = round(delay * scene.sample_rate)
        wet[shift:] += gain * mix[: len(mix) - shift]
    peak = np.abs(wet).max()
    if peak > 0:
        wet *= 10 ** (scene.loudness / 20) / peak
    return wet.astype(np.float32)


def _surroundings(mix: np.ndarray, scene: Scene, outside: list[Contact]) -> None:
    """Adds everything that is no visible touch, at levels against the loudest of those."""
    peak = np.abs(mix).max() or 1.0
    rng = np.random.default_rng([scene.seed, scene.level, _OUTSIDE])
    rest = np.zeros_like(mix)
    knocks = [c for c in outside if c.kind == "knock"]
    if knocks:
        ring(rest, knocks, _THROUGH_A_WALL, rng.uniform(0.6, 1.0), scene.sample_rate, rng)
        rest *= rng.uniform(0.12, 0.3) / (np.abs(rest).max() + 1e-9)
    for contact in outside:
        if contact.kind == "chirp":
            noises.chirp(rest, contact, 0.15 * contact.speed, scene.sample_rate, rng)
    for noise in scene.noises:
        noises.background(rest, noise, scene.sample_rate, rng)
    mix += peak * rest


def ring(
    mix: np.ndarray,
    contacts: list[Contact],
    timbre: Timbre,
    pitch: float,
    sample_rate: int,
    rng: np.random.Generator,
) -> None:
    """Adds to `mix` [M] the modes and the click of each contact, louder and brighter with its
    speed.

    A contact starts between two samples: sin(w (n/sr - t)) is the imaginary part of exp(s n/sr)
    exp(-s t), so one table of exponentials serves all contacts exactly.
    """
    ratios = np.array(timbre.ratios) * np.exp(rng.uniform(-0.012, 0.012, len(timbre.ratios)))
    gains = np.array(timbre.gains) * np.exp(rng.uniform(-0.35, 0.35, len(timbre.gains)))
    hertz = timbre.f0 * pitch * ratios
    gains = np.where(hertz < 0.45 * sample_rate, gains, 0.0)
    poles = -(ratios**timbre.damping) / timbre.tau + 2j * np.pi * hertz
    # After nine time constants a mode is 78 dB down.
    length = min(len(mix), int(9 * timbre.tau * sample_rate) + 2)
    table = _exponentials(poles / sample_rate, length)
    click_length = int(9 * timbre.click_tau * sample_rate) + 2
    fastest = max((c.speed for c in contacts), default=1.0)
    for contact in contacts:
        level = (contact.speed / fastest) ** 0.8
        place = np.exp(rng.uniform(-0.2, 0.2, len(gains)))
        bright = level ** (0.35 * np.log2(ratios))
        noise = rng.standard_normal(click_length)
        start = int(np.ceil(contact.time_s * sample_rate))
        late = start / sample_rate - contact.time_s
        count = min(length, len(mix) - start)
        if count <= 0:
            continue
        weight = level * gains * place * bright * np.exp(poles * late)
        # Not a matrix product: its rounding depends on the number of threads, and a seed must
        # give the same bits anywhere.
        for mode, w in zip(table, weight.astype(np.complex64), strict=True):
            mix[start : start + count] += w.imag * mode.real[:count] + w.real * mode.imag[:count]
        click = _lowpass(noise, timbre.click_cut / sample_rate)
        click *= np.exp(-(np.arange(click_length) / sample_rate + late) / timbre.click_tau)
        count = min(click_length, len(mix) - start)
        mix[start : start + count] += level * timbre.click * click[:count]


def _exponentials(steps: np.ndarray, length: int) -> np.ndarray:
    """exp(step * n) for n < length, complex64 [M, length], as products of two short tables (an
    exp a sample is slow).
    """
    blocks = -(-length // _BLOCK)
    coarse = np.exp(steps[:, None] * (np.arange(blocks) * _BLOCK)).astype(np.complex64)
    fine = np.exp(steps[:, None] * np.arange(_BLOCK)).astype(np.complex64)
    return (coarse[:, :, None] * fine[:, None, :]).reshape(len(steps), -1)[:, :length]


def _lowpass(noise: np.ndarray, cut: float) -> np.ndarray:
    """Unit-power noise below `cut` (a part of the sample rate), by a gentle slope in the
    spectrum.
    """
    spectrum = np.fft.rfft(noise)
    spectrum /= 1 + (np.fft.rfftfreq(len(noise)) / cut) ** 4
    out = np.fft.irfft(spectrum, len(noise))
    return out / (out.std() + 1e-9)
