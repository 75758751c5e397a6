"""Step time, memory and scaling of ZeRO 1, 2 and 3 on 1 to 4,096 GPUs, from one GPU's numbers.

The formulae and what they leave out are in docs/scaling.md. Seconds, bytes and bytes a second.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
GIB = 2**30


@dataclass(frozen=True)
class Measured:
    """One GPU's step without ZeRO: ``batch`` samples, ``accumulate`` times, then the optimizer.

    ``parameters`` of the whole model, ``trained`` of them; ``activation_bytes`` a sample.
    ``coupling`` seconds that pairing noise and data took a pass, on the CPU beside the step, for a
    batch of ``coupled`` clips; 0 = none is paired.
    """

    forward: float
    backward: float
    optimizer: float
    batch: int
    parameters: int
    trained: int
    activation_bytes: float
    data: float = 0.0
    accumulate: int = 1
    coupling: float = 0.0
    coupled: int = 512

    def pairing(self, gpus: int) -> float:
        """Seconds a step of an assignment over the batch of all ``gpus``; between 512 and 2,048
        clips SciPy's grew with their number to the power 2.5 (0.04 to 1.3 s)."""
        clips = self.batch * gpus
        return self.accumulate * self.coupling * (clips / self.coupled) ** 2.5

    @property
    def seconds(self) -> float:
        """Of a step."""
        passes = self.accumulate * (self.data + self.forward + self.backward)
        return passes + self.optimizer


@dataclass(frozen=True)
class Network:
    """What GPUs are joined by. The defaults are data sheet figures of an H100 node (NVLink 4: 450
    GB/s each way a GPU; one 400 Gb/s adapter a GPU) times ``efficiency``."""

    inside: float = 450e9
    between: float = 50e9
    efficiency: float = 0.8
    per_node: int = 8
    latency: float = 15e-6
    bucket: float = 400e6
    overlap: float = 0.8
    jitter: float = 0.01

    def bandwidth(self, gpus: int) -> float:
        """Bytes a second and GPU between so many."""
        link = self.inside if gpus <= self.per_node else self.between
        return link * self.efficiency

    def moved(self, size: float, gpus: int) -> float:
        """Seconds of one all-gather or reduce-scatter of ``size`` bytes."""
        if gpus == 1 or size == 0:
            return 0.0
        messages = math.ceil(size / self.bucket)
        ring = size * (gpus - 1) / gpus / self.bandwidth(gpus)
        return ring + messages * self.latency * math.ceil(math.log2(gpus))


@dataclass(frozen=True)
class Point:
    """One row: a ZeRO stage on so many GPUs."""

    stage: int
    gpus: int
    seconds: float
    memory: float
    efficiency: float
    samples_per_second: float
    communication: float


def memory(measured: Measured, stage: int, gpus: int, gathered: float = 2e9) -> float:
    """Bytes on one GPU: bf16 weights and gradients, fp32 weights, two moments and the average.

    ``gathered``: of bf16 weights that ZeRO-3 holds put together at a time.
    """
    total, trained = measured.parameters, measured.trained
    weights = 2 * total / (gpus if stage == 3 else 1)
    if stage == 3 and gpus > 1:
        weights += min(gathered, 2 * total)
    gradients = 2 * trained / (gpus if stage >= 2 else 1)
    optimizer = 16 * trained / gpus
    return weights + gradients + optimizer + measured.batch * measured.activation_bytes


def point(measured: Measured, network: Network, stage: int, gpus: int) -> Point:
    """The step with ``measured.batch`` samples on every GPU (weak scaling)."""
    gradients, weights = 2 * measured.trained, 2 * measured.parameters
    passes = measured.accumulate
    # Gradients leave while the backward pass makes them; ZeRO-1 sends the accumulated ones once.
    scatter = network.moved(gradients, gpus) * (1 if stage == 1 else passes)
    behind, open_ = scatter, 0.0
    if stage < 3:
        open_ = network.moved(2 * measured.trained, gpus)  # new weights, before the next forward
    else:
        # Weights come together for the forward pass, and those that learn for the backward pass.
        behind += passes * (network.moved(weights, gpus) + network.moved(gradients, gpus))
    room = (
        network.overlap * passes * (measured.backward + (measured.forward if stage == 3 else 0.0))
    )
    exposed = max(0.0, behind - room) + open_
    computed = measured.seconds - measured.optimizer + measured.optimizer / gpus
    # The slowest of n GPUs: the expected maximum of n normal deviations.
    late = network.jitter * math.sqrt(2 * math.log(gpus)) if gpus > 1 else 0.0
    # Made while the step before runs: it shows only where it takes longer than a step.
    seconds = max(computed * (1 + late) + exposed, measured.pairing(gpus))
    samples = measured.batch * passes * gpus / seconds
    return Point(
        stage,
        gpus,
        seconds,
        memory(measured, stage, gpus),
        measured.seconds / seconds,
        samples,
        exposed,
    )


def table(measured: Measured, network: Network) -> str:
    """All stages and counts, as Markdown."""
    lines = [
        "| ZeRO | GPUs | step, s | of it exposed communication, s | GiB a GPU | samples/s "
        "| efficiency |",
        "|---|---|---|---|---|---|---|",
    ]
    for stage in (1, 2, 3):
        for gpus in COUNTS:
            row = point(measured, network, stage, gpus)
            lines.append(
                f"| {stage} | {gpus} | {row.seconds:.3f} | {row.communication:.3f} "
                f"| {row.memory / GIB:.1f} | {row.samples_per_second:.0f} | {row.efficiency:.2f} |"
            )
    return "\n".join(lines)
