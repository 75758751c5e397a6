"""Tables that are made once."""

import torch

from syncflow.ops.kept import kept


def test_made_once_for_each_size_and_of_use_in_training():
    made = []

    @kept
    def table(n: int) -> torch.Tensor:
        made.append(n)
        return torch.arange(n, dtype=torch.float32)

    with torch.inference_mode():
        first = table(3)
    assert table(3) is first and made == [3]
    assert table(4).shape == (4,) and made == [3, 4]
    weight = torch.ones(3, requires_grad=True)
    (weight * table(3)).sum().backward()  # saves the table, which an inference tensor forbids
    assert weight.grad.tolist() == [0, 1, 2]


def test_two_sizes_compile_to_one_graph():
    @kept
    def table(n: int) -> torch.Tensor:
        return torch.arange(n, dtype=torch.float32)

    def scaled(x: torch.Tensor) -> torch.Tensor:
        return x * table(3) + table(1)

    compiled = torch.compile(scaled, fullgraph=True, backend="aot_eager")
    assert compiled(torch.ones(3)).tolist() == [0, 1, 2]
