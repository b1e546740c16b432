import os
import subprocess

import pytest
import torch

from sequencer_models import compilers
from sequencer_models.compilers import Compiler


@pytest.fixture
def programs(monkeypatch, tmp_path):
    """A machine with programs of these names, and no environment variable for compilers."""

    def have(*names: str) -> None:
        for name in names:
            (tmp_path / name).write_text("#!/bin/sh\n")
            (tmp_path / name).chmod(0o755)

    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ("CC", compilers.VARIABLE):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(compilers.importlib.util, "find_spec", lambda name: None)
    return have


def names() -> list[str]:
    return [compiler.name for compiler in compilers.installed()]


def test_they_are_tried_in_order_and_zig_last(programs):
    programs("clang", "zig", "gcc")
    assert names() == ["gcc", "clang", "zig"]


def test_cc_comes_first_and_may_have_arguments(programs, monkeypatch):
    programs("gcc", "my-cc")
    monkeypatch.setenv("CC", "my-cc -m64")
    assert compilers.installed()[0] == Compiler("my-cc -m64", ("my-cc", "-m64"))
    monkeypatch.setenv("CC", "gcc")
    assert names() == ["gcc"]


def test_the_variable_takes_the_place_of_all_others(programs, monkeypatch):
    programs("gcc", "clang")
    monkeypatch.setenv("CC", "gcc")
    monkeypatch.setenv(compilers.VARIABLE, "clang no-such-compiler")
    assert names() == ["clang"]
    monkeypatch.setenv(compilers.VARIABLE, "")
    assert names() == []


def test_the_zig_of_a_wheel_comes_before_one_on_the_path(programs, monkeypatch, tmp_path):
    programs("zig")
    assert compilers.installed() == [Compiler("zig", (str(tmp_path / "zig"), "cc"), is_zig=True)]
    wheel = tmp_path / "ziglang"
    wheel.mkdir()
    origin = str(wheel / "__init__.py")
    monkeypatch.setattr(compilers.importlib.util, "find_spec", lambda name: type("Spec", (), {"origin": origin}))
    assert compilers.installed()[0].command[0] == str(tmp_path / "zig"), "the wheel has no program"
    (wheel / "zig").touch(0o755)
    assert compilers.installed()[0].command == (str(wheel / "zig"), "cc")


@pytest.mark.parametrize(
    ("machine", "platform", "capability", "gcc", "zig"),
    [
        ("x86_64", "linux", "AVX512", ["-march=native"], "-march=native"),
        ("x86_64", "linux", "AVX2", ["-march=native", "-mno-avx512f"], "-march=x86_64_v3"),
        ("AMD64", "linux", "DEFAULT", [], "-march=x86_64"),
        ("x86_64", "linux", "NO AVX", [], "-march=x86_64"),
        ("aarch64", "linux", "DEFAULT", ["-mcpu=native"], "-mcpu=native"),
        ("arm64", "darwin", "DEFAULT", [], "-mcpu=native"),
    ],
)
def test_flags_keep_to_the_instructions_that_torch_uses(monkeypatch, machine, platform, capability, gcc, zig):
    monkeypatch.setattr(compilers.platform, "machine", lambda: machine)
    monkeypatch.setattr(compilers.sys, "platform", platform)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    assert compilers.flags_for_processor() == gcc
    assert compilers._flags_for_zig()[-1] == zig


@pytest.mark.parametrize(
    ("platform", "is_zig", "compiles_with", "links_with"),
    [
        ("linux", False, set(), ["-shared"]),
        ("linux", True, {"-DSEQPIPE_ZIG"}, ["-shared", "-nostdlib"]),
        ("darwin", False, {"-Xclang", "-fopenmp"}, ["-dynamiclib", "-undefined", "dynamic_lookup"]),
        ("darwin", True, {"-DSEQPIPE_ZIG", "-fopenmp"}, ["-dynamiclib", "-undefined", "dynamic_lookup"]),
    ],
)
def test_it_compiles_and_then_links(monkeypatch, tmp_path, platform, is_zig, compiles_with, links_with):
    runs = []
    monkeypatch.setattr(compilers, "_run", lambda command, environ: runs.append((command, environ)))
    monkeypatch.setattr(compilers.sys, "platform", platform)
    compilers.compile_kernel(Compiler("a", ("cc", "-m64"), is_zig), tmp_path / "k.so")
    (compile_, environ), (link, _) = runs
    made = str(tmp_path / "k.o")
    assert compile_[:2] == link[:2] == ["cc", "-m64"]
    assert compile_[-4:] == ["-c", str(compilers.SOURCE), "-o", made]
    assert compiles_with <= set(compile_)
    assert link[2:] == [*links_with, made, "-o", str(tmp_path / "k.so")]
    assert environ["ZIG_GLOBAL_CACHE_DIR"] == environ["ZIG_LOCAL_CACHE_DIR"] == str(tmp_path)


def test_why_a_build_failed_is_a_line():
    def failed(stderr: bytes) -> str:
        return compilers.in_a_line(subprocess.CalledProcessError(1, ["cc"], stderr=stderr))

    assert failed(b"In file a.c:\na.c:1: error: first\na.c:2: error: second\n1 error\n") == "a.c:1: error: first"
    assert failed(b"something\nis wrong\n") == "is wrong"
    assert "returned non-zero exit status 1" in failed(b"")
    assert compilers.in_a_line(subprocess.TimeoutExpired("cc", 120.0)) == "did not end within 120 s"
    assert compilers.in_a_line(OSError("no such file")) == "no such file"


def test_a_compiler_that_fails_is_an_error_with_what_it_printed():
    with pytest.raises(subprocess.CalledProcessError) as caught:
        compilers._run(["sh", "-c", "echo no luck >&2; exit 3"], os.environ)
    assert (caught.value.returncode, caught.value.stderr) == (3, b"no luck\n")
    compilers._run(["true"], os.environ)


@pytest.mark.usefixtures("programs")
def test_the_message_for_a_machine_without_a_compiler_says_what_was_looked_for(monkeypatch):
    assert compilers.none_installed() == (
        "no C compiler here, of gcc, cc, clang, zig; `pip install ziglang` brings one"
    )
    monkeypatch.setenv(compilers.VARIABLE, "icc")
    assert compilers.none_installed() == "no C compiler here of those that SEQPIPE_COMPILERS names (icc)"
    monkeypatch.setenv(compilers.VARIABLE, "")
    assert compilers.none_installed() == "no C compiler here of those that SEQPIPE_COMPILERS names (none)"
