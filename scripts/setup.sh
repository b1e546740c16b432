#!/bin/sh
# Make .venv and install the project into it: `sh scripts/setup.sh` to run it, `sh scripts/setup.sh dev,compiler` to work on it.
# Silent when nothing has changed since the last time: what was installed is noted in .venv/installed, last of all.
#
#   PYTHON           the interpreter to build on; otherwise the first of the list below that will do
#   TORCH_INDEX_URL  where torch and torchvision come from: an index of CPU builds, or of CUDA builds. Where it names none,
#                    Linux without an NVIDIA GPU takes torch's own index of CPU builds, if that answers within 3 s
#   TORCH_CPU_INDEX_URL  another address of that index; empty: do not ask it
set -eu
unset CDPATH  # or `cd` might go, and print, elsewhere
cd "$(dirname "$0")/.."

EXTRAS=${1:-}
PYTHON=${PYTHON:-}
TORCH_INDEX_URL=${TORCH_INDEX_URL:-}
TORCH_CPU_INDEX_URL=${TORCH_CPU_INDEX_URL-https://download.pytorch.org/whl/cpu}
# The pins are resolved and tested on 3.11, so it comes first.
KNOWN_PYTHONS="python3.11 python3.12 python3.13 python3.14 python3"
# pip's settings that would install elsewhere, other things or a part; where packages come from stays the user's to say.
UNWANTED_PIP_SETTINGS="USER TARGET PREFIX ROOT PYTHON PLATFORM PYTHON_VERSION IMPLEMENTATION ABI NO_DEPS DRY_RUN
    REQUIRE_HASHES REQUIREMENT EDITABLE GROUP CONFIG_SETTINGS CONFIG_SETTING GLOBAL_OPTION NO_BUILD_ISOLATION"

STAMP=.venv/installed
MADE_IN=.venv/made-in
TORCH_SOURCE=.venv/torch-source
LOG=.venv/install.log
PIP_SETTINGS=.venv/pip.conf
USERS_PIP_SETTINGS=.venv/pip-of-user.conf

say() { printf '%s\n' "setup: $*" >&2; }
die() { say "$*"; exit 1; }

main() {
    forget_settings_of_python
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
    forget_unwanted_settings_of_pip
    install_torch
    quiet_pip -e ".${EXTRAS:+[$EXTRAS]}"
    has_compiler || install_compiler
    { fingerprint && echo "extras: $EXTRAS"; } >"$STAMP.new"
    mv "$STAMP.new" "$STAMP"
    rm -f "$USERS_PIP_SETTINGS"  # it may hold a password
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
    [ "$(cat "$MADE_IN" 2>/dev/null)" = "$(pwd)" ] && .venv/bin/python -I -m pip --version >/dev/null 2>&1 &&
        has_python_asked_for
}

make_venv() {
    python=$(base_of "$(choose_python)")
    say "making .venv with $python ($("$python" -V))"
    rm -rf .venv
    "$python" -I -m venv .venv || die "$python could not make .venv: see above"
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

# Of a virtual environment the interpreter that it was made from: the environment may be .venv itself, which is removed.
base_of() { "$1" -I -c 'import sys; print(sys._base_executable or sys.executable)'; }

die_without_venv() {
    die "$1 cannot make virtual environments; on Debian, Ubuntu and WSL: sudo apt install python$(minor_version "$1")-venv"
}

# PYTHONHOME, PYTHONPATH, PYTHONWARNINGS and their like, for another Python, or another environment than this.
forget_settings_of_python() {
    for name in $(env | LC_ALL=C sed -n 's/^\(PYTHON[A-Z0-9][A-Z0-9_]*\)=.*/\1/p') __PYVENV_LAUNCHER__; do unset "$name"; done
}

# In the environment, in the files that pip reads everywhere (this environment's own comes after them), and in the one that
# PIP_CONFIG_FILE names (which comes last of all).
forget_unwanted_settings_of_pip() {
    for key in $UNWANTED_PIP_SETTINGS; do unset "PIP_$key"; done
    keys=$(printf '%s\n' $UNWANTED_PIP_SETTINGS | tr 'A-Z_' 'a-z-')
    for section in global install; do
        printf '[%s]\n' "$section"
        printf '%s =\n' $keys  # as if not set
    done >"$PIP_SETTINGS"
    if [ -f "${PIP_CONFIG_FILE:-}" ]; then
        unwanted=$(printf '%s' "$keys" | tr '\n-' '|.')
        (umask 077 && grep -viE "^[[:space:]]*($unwanted)[[:space:]]*[=:]" "$PIP_CONFIG_FILE" >"$USERS_PIP_SETTINGS") || :
        export PIP_CONFIG_FILE="$PWD/$USERS_PIP_SETTINGS"
    fi
}

# Alone, since an index of torch's builds seldom holds the other pins.
install_torch() {
    if [ -n "$TORCH_INDEX_URL" ]; then
        force=--force-reinstall  # another build of that version may be there
        ! has_torch_asked_for || force=
        rm -f "$TORCH_SOURCE"
        quiet_pip --no-deps $force --index-url "$TORCH_INDEX_URL" torch torchvision
        torch_source >"$TORCH_SOURCE"
    elif wants_cpu_build && ! has_pinned_torch; then
        install_cpu_build
    fi
}

wants_cpu_build() {
    [ "$(uname -s)" = Linux ] && ! has_nvidia_gpu && [ -n "$TORCH_CPU_INDEX_URL" ] && [ -z "${PIP_NO_INDEX:-}" ]
}

has_pinned_torch() {
    for folder in .venv/lib/python3*/site-packages/torch-"$(sed -n 's/^torch==//p' constraints.txt)"*.dist-info; do
        [ ! -d "$folder" ] || return 0
    done
    return 1
}

# By its driver, which in WSL is that of Windows.
has_nvidia_gpu() {
    command -v nvidia-smi >/dev/null || [ -e /proc/driver/nvidia ] || [ -e /dev/nvidia0 ] ||
        [ -e /usr/lib/wsl/lib/nvidia-smi ]
}

install_cpu_build() {
    if ! cpu_index_answers; then
        say "no NVIDIA GPU here, but torch's index of CPU builds did not answer within 3 s (see $LOG): torch comes from" \
            "pip's default index"
    elif try_pip --no-deps --index-url "$TORCH_CPU_INDEX_URL" torch torchvision; then
        say "no NVIDIA GPU here: torch is a CPU build, from its own index of them"
    else
        say "no NVIDIA GPU here, but torch's index of CPU builds did not give the pinned torch for this Python (see $LOG):" \
            "torch comes from pip's default index"
    fi
}

# With the proxies of the environment. In a thread, since a look-up of a name has no limit of its own.
cpu_index_answers() {
    .venv/bin/python -I - "$TORCH_CPU_INDEX_URL/torch/" >>"$LOG" 2>&1 <<'END'
import os, sys, threading, urllib.request

def ask():
    try:
        urllib.request.urlopen(sys.argv[1], timeout=3).close()
    except Exception as error:
        print(f"{sys.argv[1]}: {error}", flush=True)
        os._exit(1)
    os._exit(0)

threading.Thread(target=ask, daemon=True).start()
threading.Event().wait(3)
print(f"{sys.argv[1]}: no answer", flush=True)
os._exit(1)
END
}

# One that builds a library: Debian's gcc comes without the headers, macOS's cc may only offer to install one.
has_compiler() {
    for compiler in "${CC:-cc}" cc gcc clang; do
        $compiler -x c -fPIC -shared -o .venv/compiled.so - >>"$LOG" 2>&1 <<'END' || continue
#include <math.h>
float of(float x) { return expf(x); }
END
        rm -f .venv/compiled.so
        return
    done
    return 1
}

install_compiler() {
    if try_pip -e '.[compiler]'; then
        say "no C compiler here: took one from a wheel (ziglang), which will build the LSTM kernel"
    else
        say "no C compiler here, and none from a wheel (see $LOG): LSTMs will be slower and take more memory, until there is one"
    fi
}

# Into a log, since pip prints a warning for every package and every place that it did not find it in.
try_pip() {
    .venv/bin/python -I -m pip install --disable-pip-version-check -c constraints.txt "$@" >>"$LOG" 2>&1 </dev/null
}

quiet_pip() {
    if ! try_pip "$@"; then
        grep -v 'is ignored: it is neither a file nor a directory' "$LOG" | tail -n 15 >&2
        die "the installation failed, see above or $LOG; repeat the command to go on, or begin again with: make clean"
    fi
}

warn_of_idle_cuda() {
    for folder in .venv/lib/python3*/site-packages/nvidia; do
        [ -d "$folder" ] && ! has_nvidia_gpu || continue
        say "this torch is a CUDA build and no NVIDIA GPU was found: a CPU build takes 5 GB less on disk and 700 MB less" \
            "memory in every process; set TORCH_INDEX_URL to an index that has it, after: make clean"
    done
}

main
