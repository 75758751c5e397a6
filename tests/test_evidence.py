"""Results that documents quote are of the kernels that stand beside them, or say otherwise."""

import json

from benchmarks.evidence import (
    MARK,
    ROOT,
    quotes_of_older_weights,
    remember,
    shipped_weights,
    source_hash,
    stale_quotes,
    with_tables,
)
from benchmarks.gpu.results import environment
from syncflow.model_io import fingerprint, model_folder
from syncflow.ops import extension


def test_no_quoted_result_is_stale():
    assert stale_quotes() == []


def test_stale_quotes_are_found(tmp_path):
    kernels = tmp_path / "csrc" / "cuda"
    kernels.mkdir(parents=True)
    (kernels / "a.cuh").write_text("one")
    results = tmp_path / "benchmarks" / "results"
    results.mkdir(parents=True)
    result = {"suite": "gpu", "csrc_cuda": source_hash(kernels)}
    (results / "card-2026-01-01.json").write_text(json.dumps(result))
    line = "Fast (benchmarks/results/card-2026-01-01.json)"
    (tmp_path / "README.md").write_text(line)
    assert stale_quotes(tmp_path) == []
    (kernels / "a.cuh").write_text("two")
    assert "README.md:1" in stale_quotes(tmp_path)[0]
    (tmp_path / "README.md").write_text(f"{line}, {MARK}")
    assert stale_quotes(tmp_path) == []
    (tmp_path / "README.md").write_text("benchmarks/results/none.json")
    assert "does not exist" in stale_quotes(tmp_path)[0]


def test_tables_are_those_of_the_kept_timings():
    """`python benchmarks/evidence.py` writes them."""
    for page, text in with_tables().items():
        assert page.read_text() == text, f"{page.name} quotes other numbers"


def test_quotes_of_cpu_results_are_held_to_the_cpu_kernels(tmp_path):
    for name in ("cpu", "cuda"):
        (tmp_path / "csrc" / name).mkdir(parents=True)
        (tmp_path / "csrc" / name / "a.cpp").write_text("one")
    results = tmp_path / "benchmarks" / "results"
    results.mkdir(parents=True)
    result = {"suite": "cpu", "csrc_cpu": source_hash(tmp_path / "csrc" / "cpu")}
    (results / "kernels.json").write_text(json.dumps(result))
    (tmp_path / "README.md").write_text("Fast (benchmarks/results/kernels.json)")
    (tmp_path / "csrc" / "cuda" / "a.cpp").write_text("two")
    assert stale_quotes(tmp_path) == []
    (tmp_path / "csrc" / "cpu" / "a.cpp").write_text("two")
    assert "README.md:1" in stale_quotes(tmp_path)[0]


def test_kernels_laid_out_anew_are_the_same(tmp_path):
    for name in ("cpu", "cuda"):
        (tmp_path / "csrc" / name).mkdir(parents=True)
        (tmp_path / "csrc" / name / "a.cpp").write_text("int f() { return 1; }")
    results = tmp_path / "benchmarks" / "results"
    results.mkdir(parents=True)
    result = {"suite": "cpu", "csrc_cpu": source_hash(tmp_path / "csrc" / "cpu")}
    (results / "kernels.json").write_text(json.dumps(result))
    (tmp_path / "README.md").write_text("Fast (benchmarks/results/kernels.json)")
    remember(tmp_path)
    kernel = tmp_path / "csrc" / "cpu" / "a.cpp"
    kernel.write_text("int f() {\n  return 1;\n}\n")
    assert stale_quotes(tmp_path) == []
    kernel.write_text("int f() {\n  return 2;\n}\n")
    assert "of other kernels" in stale_quotes(tmp_path)[0]
    remember(tmp_path)  # of other kernels: does not make the old result true
    assert "of other kernels" in stale_quotes(tmp_path)[0]


def test_hash_knows_names_and_contents(tmp_path):
    (tmp_path / "a.cu").write_text("x")
    first = source_hash(tmp_path)
    (tmp_path / "a.cu").rename(tmp_path / "b.cu")
    second = source_hash(tmp_path)
    (tmp_path / "b.cu").write_text("y")
    assert len({first, second, source_hash(tmp_path)}) == 3


def test_what_is_told_of_the_machine_names_no_folder_of_it(monkeypatch):
    monkeypatch.setattr(extension, "find", lambda: ROOT / "syncflow" / "_C.so")
    told = environment()
    assert told["kernels"]["path"] == "_C.so" and str(ROOT) not in json.dumps(told)


def test_no_quoted_figure_is_of_other_weights_unsaid():
    assert quotes_of_older_weights() == []


def test_the_shipped_weights_are_hashed_as_reports_do():
    from syncflow.evaluation.suites import provenance

    named = provenance.load_model(None)[1]
    assert named["weights"] == shipped_weights()
    # What the records of its clips say.
    assert named["model_hash"] == fingerprint.of(model_folder.SHIPPED)


def test_quotes_of_older_weights_are_found(tmp_path):
    folder = tmp_path / "syncflow" / "pretrained"
    folder.mkdir(parents=True)
    (folder / "a.safetensors").write_bytes(b"one")
    results = tmp_path / "benchmarks" / "results" / "sync"
    results.mkdir(parents=True)
    now = shipped_weights(tmp_path)
    (results / "report.json").write_text(json.dumps({"facts": {"weights": now}}))
    quote = "Good (benchmarks/results/sync/report.json)"
    (tmp_path / "README.md").write_text(quote)
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "page.md").write_text(f"- date: x\n- weights: {now}")
    assert quotes_of_older_weights(tmp_path) == []
    (folder / "a.safetensors").write_bytes(b"two")
    assert len(quotes_of_older_weights(tmp_path)) == 2
    (tmp_path / "README.md").write_text(f"Of older weights.\n\n{quote}")  # another paragraph
    assert len(quotes_of_older_weights(tmp_path)) == 2
    (tmp_path / "README.md").write_text(f"{quote}, of older weights")
    (tmp_path / "docs" / "page.md").unlink()
    assert quotes_of_older_weights(tmp_path) == []
    (tmp_path / "docs" / "log.md").write_text(quote)
    assert quotes_of_older_weights(tmp_path) == []
