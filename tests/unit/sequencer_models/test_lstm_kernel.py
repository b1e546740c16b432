import os
import platform
import subprocess
import sys

import pytest
import torch

from sequencer_models import backends, lstm_kernel
from sequencer_models.backends import Backends
from sequencer_models.lstm_kernel import KernelUnavailableError


@pytest.fixture(autouse=True)
def _load_anew(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    lstm_kernel.load.cache_clear()
    yield
    lstm_kernel.load.cache_clear()


def built(folder) -> list[str]:
    return sorted(path.name for path in (folder / "cache" / "seqpipe").glob("*"))


def counted(monkeypatch) -> list[str]:
    calls, compile_ = [], lstm_kernel._compile
    monkeypatch.setattr(
        lstm_kernel, "_compile", lambda compiler, *rest: (calls.append(compiler), compile_(compiler, *rest))
    )
    return calls


def test_it_is_built_once_and_then_read_from_the_cache(monkeypatch, tmp_path):
    calls = counted(monkeypatch)
    first = lstm_kernel.load()
    assert len(built(tmp_path)) == 1
    lstm_kernel.load.cache_clear()
    assert lstm_kernel.load().digest == first.digest
    assert len(calls) == 1


def test_a_damaged_library_is_built_again(monkeypatch, tmp_path):
    digest = lstm_kernel.load().digest
    (path,) = (tmp_path / "cache" / "seqpipe").glob("*")
    path.unlink()
    path.write_bytes(b"not a library")
    lstm_kernel.load.cache_clear()
    assert lstm_kernel.load().digest == digest


def test_a_changed_source_is_built_apart(monkeypatch, tmp_path):
    lstm_kernel.load()
    other = tmp_path / "other.c"
    other.write_text(lstm_kernel.SOURCE.read_text() + "\n/* more */\n")
    monkeypatch.setattr(lstm_kernel, "SOURCE", other)
    lstm_kernel.load.cache_clear()
    lstm_kernel.load()
    assert len(built(tmp_path)) == 2


def test_a_cache_that_cannot_be_written_is_done_without(monkeypatch, tmp_path):
    (tmp_path / "cache").write_text("in the way")
    assert lstm_kernel.load().digest


def test_without_a_compiler_the_reason_is_told(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    with pytest.raises(KernelUnavailableError, match="no C compiler here"):
        lstm_kernel.load()


def test_a_compiler_that_fails_is_told_and_the_next_one_tried(monkeypatch, tmp_path):
    broken = tmp_path / "broken-cc"
    broken.write_text("#!/bin/sh\necho 'x.c:1: error: no such luck' >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CC", str(broken))
    assert lstm_kernel.load().digest
    lstm_kernel.load.cache_clear()
    monkeypatch.setattr(lstm_kernel, "COMPILERS", ())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))
    with pytest.raises(KernelUnavailableError, match="no such luck"):
        lstm_kernel.load()


@pytest.mark.parametrize(
    "mistake",
    [
        ("vf state_c = f * load_full(c, at, 0) + i * g;", "vf state_c = load_full(c, at, 0) + i * g;"),
        ("vf dg = dc * i * (1.0f - g * g)", "vf dg = dc * i * (1.0f - g)"),
    ],
)
def test_a_kernel_that_computes_something_else_is_never_cached(monkeypatch, tmp_path, mistake):
    wrong = tmp_path / "wrong.c"
    source = lstm_kernel.SOURCE.read_text()
    assert mistake[0] in source
    wrong.write_text(source.replace(*mistake))
    monkeypatch.setattr(lstm_kernel, "SOURCE", wrong)
    with pytest.raises(KernelUnavailableError, match="what it computes is not an LSTM"):
        lstm_kernel.load()
    assert built(tmp_path) == []
    with pytest.raises(KernelUnavailableError):
        backends.select(Backends(recurrence="native"))
    assert backends.selected() == Backends()


def test_a_kernel_without_torchs_threads_is_refused(monkeypatch):
    monkeypatch.setattr(lstm_kernel.LstmKernel, "threads", lambda self: 1, raising=False)
    monkeypatch.setattr(
        lstm_kernel.LstmKernel,
        "__setattr__",
        lambda self, name, value: name != "threads" and object.__setattr__(self, name, value),
    )
    with pytest.raises(KernelUnavailableError, match="does not share torch's OpenMP threads"):
        lstm_kernel.load()


def test_it_stays_within_the_instructions_that_torch_is_limited_to():
    program = (
        "import torch; from sequencer_models import lstm_kernel as k;"
        "print(torch.backends.cpu.get_cpu_capability(), k._flags_for_processor())"
    )
    environ = {**os.environ, "ATEN_CPU_CAPABILITY": "avx2"}
    said = subprocess.run(
        [sys.executable, "-c", program], env=environ, capture_output=True, text=True, check=True
    ).stdout.split(maxsplit=1)
    if said[0] != "AVX2":
        pytest.skip("this processor has no AVX2")
    assert "-mno-avx512f" in said[1]


def test_building_does_not_touch_the_random_state():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    lstm_kernel.load()
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the flags are those of x86")
@pytest.mark.parametrize("flags", [[], ["-mavx2", "-mfma"]], ids=["vectors of 4", "vectors of 8"])
def test_narrower_vectors_compute_the_same(tmp_path, flags):
    lstm_kernel._build(tmp_path / "narrow.so", [*lstm_kernel.FLAGS, *flags])  # which compares it with nn.LSTM
    assert (tmp_path / "narrow.so").is_file()


def test_a_kept_kernel_follows_the_umask(tmp_path):
    (tmp_path / "built").write_bytes(b"a library")
    before = os.umask(0o027)
    try:
        lstm_kernel._keep(tmp_path / "built", tmp_path / "cache" / "kept.so")
    finally:
        os.umask(before)
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["kept.so"]
    assert (tmp_path / "cache" / "kept.so").stat().st_mode & 0o777 == 0o640
