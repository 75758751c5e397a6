"""Sounds that are no ringing: splashes, rolling, and what goes on outside the picture. Pure
numpy.
"""

from __future__ import annotations

import numpy as np

from syncflow.impacts.scene import Contact, Noise


def band(
    rng: np.random.Generator, samples: int, sample_rate: int, low: float, high: float
) -> np.ndarray:
    """Noise of unit power between two frequencies in Hz, with gentle slopes, float64 [samples]."""
    spectrum = np.fft.rfft(rng.standard_normal(samples))
    hertz = np.fft.rfftfreq(samples, 1 / sample_rate)
    spectrum /= (1 + (hertz / high) ** 4) * (1 + (low / np.maximum(hertz, 1.0)) ** 4)
    out = np.fft.irfft(spectrum, samples)
    return out / (out.std() + 1e-9)


def splash(
    mix: np.ndarray,
    contact: Contact,
    level: float,
    pitch: float,
    sample_rate: int,
    rng: np.random.Generator,
) -> None:
    """Adds a slap, a wash of noise and some bubbles to `mix` [M], from the contact's time on."""
    start = int(np.ceil(contact.time_s * sample_rate))
    time = (np.arange(min(int(0.6 * sample_rate), max(len(mix) - start, 0))) + start) / sample_rate
    age = time - contact.time_s
    if len(age) == 0:
        return
    slap = band(rng, len(age), sample_rate, 150.0, 1500.0) * np.exp(-age / 0.012)
    wash = band(rng, len(age), sample_rate, 900.0, 5500.0) * np.exp(-age / 0.085)
    out = 0.5 * slap + 0.45 * wash * (1 - np.exp(-age / 0.002))
    for _ in range(7):
        born, hertz = rng.uniform(0.015, 0.25), pitch * rng.uniform(450.0, 1500.0)
        own = np.maximum(age - born, 0)
        # A bubble's note rises while it closes.
        out += 0.35 * np.sin(2 * np.pi * hertz * own * (1 + 2.5 * own)) * np.exp(-own / 0.022)
    mix[start : start + len(age)] += level * out


def chirp(
    mix: np.ndarray, contact: Contact, level: float, sample_rate: int, rng: np.random.Generator
) -> None:
    """Adds a bird's call of two or three notes to `mix` [M]."""
    at = contact.time_s
    for _ in range(int(rng.integers(2, 4))):
        length, low, sweep = (
            rng.uniform(0.05, 0.09),
            rng.uniform(2200, 3800),
            rng.uniform(-900, 1700),
        )
        start = int(np.ceil(at * sample_rate))
        age = np.arange(int(length * sample_rate)) / sample_rate
        age = age[: max(len(mix) - start, 0)]
        shape = np.sin(np.pi * np.minimum(age / length, 1)) ** 2
        note = np.sin(2 * np.pi * (low * age + 0.5 * sweep * age**2 / length))
        mix[start : start + len(age)] += level * shape * note
        at += length + rng.uniform(0.02, 0.05)


def background(mix: np.ndarray, noise: Noise, sample_rate: int, rng: np.random.Generator) -> None:
    """Adds hum, wind or the rumble of rolling to `mix` [M], at the noise's level (RMS)."""
    first, last = int(noise.start * sample_rate), min(int(noise.stop * sample_rate), len(mix))
    samples = last - first
    if samples <= 0:
        return
    time = np.arange(first, last) / sample_rate
    if noise.kind == "hum":
        out = sum(
            np.sin(2 * np.pi * 60 * noise.pitch * k * time + rng.uniform(0, 6.28)) / k**1.2
            for k in (1, 2, 3, 4, 6)
        )
    elif noise.kind == "wind":
        out = band(rng, samples, sample_rate, 180 * noise.pitch, 750 * noise.pitch)
        gusts = sum(np.sin(2 * np.pi * f * time + rng.uniform(0, 6.28)) for f in (0.31, 0.73, 1.1))
        out *= 1 + 0.25 * gusts
    else:
        out = band(rng, samples, sample_rate, 60.0, 420.0)
        out *= 1 + 0.5 * np.sin(2 * np.pi * (6 + 25 * noise.pitch) * time)
    edge = np.minimum(time - noise.start, noise.stop - time)
    mix[first:last] += noise.level * np.clip(edge / 0.04, 0, 1) * out
