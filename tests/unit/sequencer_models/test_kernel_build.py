import os
import platform
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
import torch

from sequencer_models import compilers, kernel_build, kernels, lstm_kernel
from sequencer_models.kernel_build import KernelUnavailableError
from sequencer_models.kernels import Kernels

FLAGS = compilers.FLAGS
needs_a_compiler = pytest.mark.skipif(not compilers.installed(), reason="there is no compiler")


@pytest.fixture(autouse=True)
def _load_anew(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    # what most of these tests are about does not depend on the speed of what is built, only on that of building it
    monkeypatch.setattr(compilers, "FLAGS", ("-O0", *FLAGS[1:]))
    kernel_build.load.cache_clear()
    yield
    kernel_build.load.cache_clear()


@pytest.fixture
def no_compiler(monkeypatch, tmp_path):
    """A laptop as it is sold."""
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ("CC", compilers.VARIABLE):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(compilers, "_zig", lambda: None)


def built(folder) -> list[str]:
    return sorted(path.name for path in (folder / "cache" / "seqpipe").glob("*"))


def counted(monkeypatch) -> list[str]:
    calls, compile_ = [], compilers.compile_kernel
    monkeypatch.setattr(
        compilers, "compile_kernel", lambda compiler, built: (calls.append(compiler.name), compile_(compiler, built))
    )
    return calls


@needs_a_compiler
def test_it_is_built_once_and_then_read_from_the_cache(monkeypatch, tmp_path):
    calls = counted(monkeypatch)
    first = kernel_build.load()
    assert len(built(tmp_path)) == 1
    kernel_build.load.cache_clear()
    assert kernel_build.load().digest == first.digest
    assert len(calls) == 1


@needs_a_compiler
def test_a_damaged_library_is_built_again(monkeypatch, tmp_path):
    digest = kernel_build.load().digest
    (path,) = (tmp_path / "cache" / "seqpipe").glob("*")
    path.unlink()
    path.write_bytes(b"not a library")
    kernel_build.load.cache_clear()
    assert kernel_build.load().digest == digest


def others_own(path):
    os.chown(path, os.getuid() + 1, -1)


@needs_a_compiler
@pytest.mark.parametrize(
    "spoil",
    [
        lambda library: library.chmod(0o666),
        lambda library: library.parent.chmod(0o777),
        pytest.param(others_own, marks=pytest.mark.skipif(os.geteuid() != 0, reason="gives a file away")),
    ],
)
def test_a_library_that_another_user_may_have_written_is_not_loaded(monkeypatch, tmp_path, spoil):
    kernel_build.load()
    spoil(*(tmp_path / "cache" / "seqpipe").glob("*"))
    calls = counted(monkeypatch)
    kernel_build.load.cache_clear()
    assert kernel_build.load().digest
    assert len(calls) == 1, "built again"


@needs_a_compiler
def test_a_changed_source_is_built_apart(monkeypatch, tmp_path):
    kernel_build.load()
    other = tmp_path / "other.c"
    other.write_text(compilers.SOURCE.read_text() + "\n/* more */\n")
    monkeypatch.setattr(compilers, "SOURCE", other)
    kernel_build.load.cache_clear()
    kernel_build.load()
    assert len(built(tmp_path)) == 2


@needs_a_compiler
def test_a_cache_that_cannot_be_written_does_not_matter(monkeypatch, tmp_path):
    (tmp_path / "cache").write_text("in the way")
    assert kernel_build.load().digest


@needs_a_compiler
def test_it_is_built_where_nothing_can_be_run_from_the_temporary_folder(mounted, monkeypatch):
    subprocess.run(["mount", "-o", "remount,noexec", mounted.root], check=True)
    monkeypatch.setattr(tempfile, "tempdir", str(mounted.root))
    assert kernel_build.load().digest


@pytest.mark.usefixtures("no_compiler")
def test_without_a_compiler_the_error_names_the_reason_and_a_fix():
    with pytest.raises(KernelUnavailableError, match=r"no C compiler here.*pip install ziglang"):
        kernel_build.load()


def test_no_compiler_is_tried_where_the_variable_names_none(monkeypatch):
    monkeypatch.setenv("CC", "gcc")
    monkeypatch.setenv("SEQPIPE_COMPILERS", "")
    with pytest.raises(KernelUnavailableError, match=r"no C compiler here .*SEQPIPE_COMPILERS names \(none\)"):
        kernel_build.load()


@pytest.mark.usefixtures("no_compiler")
def test_the_compiler_in_a_wheel_builds_it_where_there_is_no_other(monkeypatch, tmp_path):
    monkeypatch.setattr(compilers, "FLAGS", FLAGS)
    program = Path(pytest.importorskip("ziglang").__file__).with_name("zig")
    monkeypatch.setattr(compilers, "_zig", lambda: str(program))
    before = set(Path.home().glob(".cache/zig/*"))
    assert kernel_build.load().compiler.startswith("zig (")  # and agrees with nn.LSTM
    assert built(tmp_path), "kept"
    assert set(Path.home().glob(".cache/zig/*")) == before, "what zig builds for itself is not"


@needs_a_compiler
def test_the_variable_says_which_compilers_are_tried_and_each_choice_is_kept_apart(monkeypatch, tmp_path):
    calls = counted(monkeypatch)
    kernel_build.load()
    (name,) = calls
    monkeypatch.setenv("SEQPIPE_COMPILERS", f"no-such-compiler {name}")
    kernel_build.load.cache_clear()
    kernel_build.load()
    assert calls == [name, name]
    assert len(built(tmp_path)) == 2


@needs_a_compiler
def test_a_failing_compiler_is_reported_and_the_next_one_tried(monkeypatch, tmp_path):
    broken = tmp_path / "broken-cc"
    broken.write_text("#!/bin/sh\necho 'x.c:1: error: no such luck' >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CC", str(broken))
    assert kernel_build.load().digest
    kernel_build.load.cache_clear()
    monkeypatch.setenv("SEQPIPE_COMPILERS", str(broken))
    with pytest.raises(KernelUnavailableError, match="no such luck"):
        kernel_build.load()


def test_a_hanging_compiler_is_killed_with_its_children(monkeypatch, tmp_path):
    hanging = tmp_path / "hanging-cc"
    hanging.write_text(f"#!/bin/sh\nsleep 60 &\necho $! > {tmp_path}/pid\nwait\n")
    hanging.chmod(0o755)
    monkeypatch.setenv("CC", str(hanging))
    monkeypatch.delenv(compilers.VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))
    monkeypatch.setattr(compilers, "TIMEOUT_S", 0.5)
    began = time.monotonic()
    with pytest.raises(KernelUnavailableError, match=r"hanging-cc: did not end within 0\.5 s"):
        kernel_build.load()
    assert time.monotonic() - began < 5
    started = int((tmp_path / "pid").read_text())
    while Path(f"/proc/{started}/cmdline").exists() and Path(f"/proc/{started}/cmdline").read_bytes():
        assert time.monotonic() - began < 10, "what the compiler started lives on"
        time.sleep(0.02)


@needs_a_compiler
@pytest.mark.parametrize(
    "mistake",
    [
        ("vf state_c = f * load_full(c, at, 0) + i * g;", "vf state_c = load_full(c, at, 0) + i * g;"),
        ("vf dg = dc * i * (1.0f - g * g)", "vf dg = dc * i * (1.0f - g)"),
    ],
)
def test_a_kernel_that_computes_something_else_is_never_cached(monkeypatch, tmp_path, mistake):
    wrong = tmp_path / "wrong.c"
    source = compilers.SOURCE.read_text()
    assert mistake[0] in source
    wrong.write_text(source.replace(*mistake))
    monkeypatch.setattr(compilers, "SOURCE", wrong)
    with pytest.raises(KernelUnavailableError, match="what it computes is not an LSTM"):
        kernel_build.load()
    assert built(tmp_path) == []
    with pytest.raises(KernelUnavailableError):
        kernels.select(Kernels(lstm="native"))
    assert kernels.selected() == Kernels()


@needs_a_compiler
def test_a_kernel_without_torchs_threads_is_refused(monkeypatch):
    monkeypatch.setattr(lstm_kernel.LstmKernel, "threads", lambda self: 1, raising=False)
    monkeypatch.setattr(
        lstm_kernel.LstmKernel,
        "__setattr__",
        lambda self, name, value: name != "threads" and object.__setattr__(self, name, value),
    )
    with pytest.raises(KernelUnavailableError, match="does not share torch's OpenMP threads"):
        kernel_build.load()


@needs_a_compiler
def test_building_does_not_touch_the_random_state():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    kernel_build.load()
    assert torch.equal(torch.get_rng_state(), before)


@needs_a_compiler
@pytest.mark.skipif(platform.machine() != "x86_64", reason="the flags are those of x86")
@pytest.mark.parametrize(("gcc", "zig"), [([], "x86_64"), (["-mavx2", "-mfma"], "x86_64_v3")], ids=["of 4", "of 8"])
def test_narrower_vectors_compute_the_same(monkeypatch, tmp_path, gcc, zig):
    monkeypatch.setattr(compilers, "FLAGS", FLAGS)
    monkeypatch.setattr(compilers, "flags_for_processor", lambda: gcc)
    monkeypatch.setattr(compilers, "_flags_for_zig", lambda: ["-DSEQPIPE_ZIG", f"-march={zig}"])
    kernel_build._build(tmp_path / "narrow.so")  # which compares it with nn.LSTM
    assert (tmp_path / "narrow.so").is_file()


def test_a_kept_kernel_follows_the_umask(tmp_path):
    (tmp_path / "built").write_bytes(b"a library")
    before = os.umask(0o027)
    try:
        kernel_build._keep(tmp_path / "built", tmp_path / "cache" / "kept.so")
    finally:
        os.umask(before)
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["kept.so"]
    assert (tmp_path / "cache" / "kept.so").stat().st_mode & 0o777 == 0o640
