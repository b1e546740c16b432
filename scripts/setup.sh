#!/bin/sh
# Make .venv and install the project into it: `sh scripts/setup.sh` to run it, `sh scripts/setup.sh dev` to work on it.
# Silent when nothing has changed since the last time: what was installed is noted in .venv/installed, last of all.
#
#   PYTHON           the interpreter to build on; otherwise the first of the list below that will do
#   TORCH_INDEX_URL  where torch and torchvision come from: an index of CPU builds, or of CUDA builds. Otherwise torch's own
#                    index of CPU builds, on Linux without an NVIDIA GPU if it answers at once, else the default index
set -eu
# Of what is inherited, proxies, certificates and indexes are the user's to say; these would lead the installation astray.
unset CDPATH PYTHONPATH PYTHONHOME PYTHONSTARTUP PYTHONINSPECT __PYVENV_LAUNCHER__ PIP_TARGET PIP_PREFIX PIP_ROOT PIP_PYTHON \
    PIP_DRY_RUN PIP_NO_DEPS PIP_NO_BINARY PIP_REQUIREMENT PIP_EDITABLE PIP_REPORT PIP_QUIET
export PIP_USER=0
cd "$(dirname "$0")/.."

EXTRAS=${1:-}
PYTHON=${PYTHON:-}
TORCH_INDEX_URL=${TORCH_INDEX_URL:-}
TORCH_CPU_INDEX_URL=${TORCH_CPU_INDEX_URL:-https://download.pytorch.org/whl/cpu}  # set by tests alone
# The pins are resolved and tested on 3.11, so it comes first.
KNOWN_PYTHONS="python3.11 python3.12 python3.13 python3"
KNOWN_COMPILERS="cc gcc clang"

STAMP=.venv/installed
MADE_IN=.venv/made-in
TORCH_SOURCE=.venv/torch-source
LOG=.venv/install.log

say() { printf '%s\n' "setup: $*" >&2; }
die() { say "$*"; exit 1; }

main() {
    is_current && return
    if venv_is_usable; then
        say "bringing .venv up to date with the pinned packages"
    else
        make_venv
        say "installing the pinned packages: about 400 MB to fetch and 2.2 GB on disk, several GB more if torch is a CUDA" \
            "build; 1 to 10 minutes"
    fi
    rm -f "$STAMP"
    : >"$LOG"
    install_torch
    with=$EXTRAS
    if ! has_compiler; then
        say "no C compiler here: ziglang, which is one, is installed too (90 MB), for the kernel that makes training fast"
        with="${EXTRAS:+$EXTRAS,}compiler"
    fi
    quiet_pip -e ".${with:+[$with]}"
    { fingerprint && echo "extras: $EXTRAS"; } >"$STAMP.new"
    mv "$STAMP.new" "$STAMP"
    say "done, as .venv/bin/seqpipe"
    warn_of_idle_cuda
}

# Is everything that was asked for installed? `dev` includes the rest.
is_current() {
    [ -f "$STAMP" ] && [ -x .venv/bin/python ] || return 1
    [ "$(sed -n 1p "$STAMP")" = "$(fingerprint)" ] || return 1
    [ -z "$EXTRAS" ] || [ "$(sed -n 2p "$STAMP")" = "extras: $EXTRAS" ] || return 1
    has_python_asked_for && has_torch_asked_for
}

# What an installation depends on: these files, the interpreter, and the folder, whose path is in the environment's scripts.
fingerprint() {
    { cat pyproject.toml constraints.txt scripts/setup.sh; pwd; .venv/bin/python -VV; } | cksum
}

has_python_asked_for() { [ -z "$PYTHON" ] || [ "$(minor_version .venv/bin/python)" = "$(minor_version "$PYTHON")" ]; }
has_torch_asked_for() { [ -z "$TORCH_INDEX_URL" ] || [ "$(cat "$TORCH_SOURCE" 2>/dev/null)" = "$(torch_source)" ]; }
torch_source() { printf '%s' "$TORCH_INDEX_URL" | cksum; }  # not the address itself, which may carry a password

# An environment that was moved or half made, or whose interpreter is gone or not the one asked for, is made anew.
venv_is_usable() {
    [ "$(cat "$MADE_IN" 2>/dev/null)" = "$(pwd)" ] && .venv/bin/python -m pip --version >/dev/null 2>&1 &&
        has_python_asked_for
}

make_venv() {
    python=$(choose_python)
    say "making .venv with $python ($("$python" -V))"
    rm -rf .venv
    "$python" -m venv .venv || die "$python could not make .venv: see above"
    pwd >"$MADE_IN"
}

choose_python() {
    if [ -n "$PYTHON" ]; then
        is_new_enough "$PYTHON" || die "PYTHON=$PYTHON does not run or is older than Python 3.11; name another"
        can_make_venvs "$PYTHON" || die_without_venv "$PYTHON"
        printf '%s\n' "$PYTHON"
        return
    fi
    lacking=
    for candidate in $KNOWN_PYTHONS; do
        is_new_enough "$candidate" || continue
        if can_make_venvs "$candidate"; then
            printf '%s\n' "$candidate"
            return
        fi
        lacking=${lacking:-$candidate}
    done
    [ -z "$lacking" ] || die_without_venv "$lacking"
    die "no Python 3.11 or newer found; install one, or name it: make run PYTHON=/path/to/python3"
}

# By running it: a version manager's shim may be there and lead nowhere.
is_new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }
can_make_venvs() { "$1" -c 'import ensurepip, venv' >/dev/null 2>&1; }
minor_version() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null; }

die_without_venv() {
    die "$1 cannot make virtual environments; on Debian, Ubuntu and WSL: sudo apt install python$(minor_version "$1")-venv"
}

# torch and torchvision come alone where they have an index of their own, since such an index seldom holds the other pins.
install_torch() {
    if [ -n "$TORCH_INDEX_URL" ]; then
        force=--force-reinstall  # another build of that version may be there
        ! has_torch_asked_for || force=
        rm -f "$TORCH_SOURCE"
        quiet_pip --no-deps $force --index-url "$TORCH_INDEX_URL" torch torchvision
        torch_source >"$TORCH_SOURCE"
    elif [ "$(uname -s)" = Linux ] && ! has_nvidia_gpu && ! has_pinned_torch; then
        if ! cpu_index_has_torch; then
            say "torch's index of CPU builds does not answer, or has none for this Python: torch comes from the default index"
        elif pip_install --no-deps --index-url "$TORCH_CPU_INDEX_URL" torch torchvision; then
            say "no NVIDIA GPU here: torch is the CPU build, from torch's own index"
        else
            say "the CPU build of torch could not be installed (see $LOG): torch comes from the default index"
        fi
    fi
}

has_compiler() {
    for compiler in $KNOWN_COMPILERS; do
        ! command -v "$compiler" >/dev/null || return 0
    done
    return 1
}

has_nvidia_gpu() { [ -e /proc/driver/nvidia ] || [ -e /dev/nvidia0 ] || command -v nvidia-smi >/dev/null; }
pinned_torch() { sed -n 's/^torch==//p' constraints.txt; }
has_pinned_torch() {
    .venv/bin/python -c 'import importlib.metadata as m, sys; sys.exit(m.version("torch").partition("+")[0] != sys.argv[1])' \
        "$(pinned_torch)" 2>/dev/null
}

# Within 3 s: does the index have the pinned torch for this interpreter? pip itself would try for minutes.
cpu_index_has_torch() {
    .venv/bin/python -c '
import os, ssl, sys, threading, urllib.request
found = []
def look():
    trusted = ssl.create_default_context()
    if not trusted.get_ca_certs():  # the system has none; pip brings its own
        from pip._vendor import certifi
        trusted.load_verify_locations(certifi.where())
    page = urllib.request.urlopen(sys.argv[1].rstrip("/") + "/torch/", timeout=3, context=trusted).read()
    tag = "cp%d%d" % sys.version_info[:2]
    found.append(("torch-%s%%2Bcpu-%s-%s-" % (sys.argv[2], tag, tag)).encode() in page.replace(b"+cpu", b"%2Bcpu"))
thread = threading.Thread(target=look, daemon=True)
thread.start()
thread.join(3)
sys.stderr.flush()
os._exit(0 if found and found[0] else 1)
' "$TORCH_CPU_INDEX_URL" "$(pinned_torch)" >>"$LOG" 2>&1 </dev/null
}

quiet_pip() {
    if ! pip_install "$@"; then
        grep -v 'is ignored: it is neither a file nor a directory' "$LOG" | tail -n 15 >&2
        die "the installation failed, see above or $LOG; repeat the command to go on, or begin again with: make clean"
    fi
}

# Into a log, since pip prints a warning for every package and every place that it did not find it in.
pip_install() {
    .venv/bin/python -m pip install --disable-pip-version-check -c constraints.txt "$@" >>"$LOG" 2>&1 </dev/null
}

warn_of_idle_cuda() {
    for folder in .venv/lib/python3*/site-packages/nvidia; do
        [ -d "$folder" ] && ! has_nvidia_gpu || continue
        say "this torch is a CUDA build and no NVIDIA GPU was found: a CPU build (set TORCH_INDEX_URL to an index that has" \
            "it) takes 5 GB less on disk and 700 MB less memory in every process"
    done
}

main
