#!/bin/sh
# Make .venv and install the project into it: `sh scripts/setup.sh` to run it, `sh scripts/setup.sh dev` to work on it.
# Silent when nothing has changed since the last time: what was installed is noted in .venv/installed, last of all.
#
#   PYTHON           the interpreter to build on; otherwise the first of the list below that will do
#   TORCH_INDEX_URL  where torch and torchvision come from: an index of CPU builds, or of CUDA builds
set -eu
cd "$(dirname "$0")/.."

EXTRAS=${1:-}
PYTHON=${PYTHON:-}
TORCH_INDEX_URL=${TORCH_INDEX_URL:-}
# The pins are resolved and tested on 3.11, so it comes first.
KNOWN_PYTHONS="python3.11 python3.12 python3.13 python3"

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
    [ -z "$TORCH_INDEX_URL" ] || install_torch_from_index
    quiet_pip -e ".${EXTRAS:+[$EXTRAS]}"
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

install_torch_from_index() {
    # Alone, since such an index seldom holds the other pins; by force, since another build of that version may be there.
    force=--force-reinstall
    ! has_torch_asked_for || force=
    rm -f "$TORCH_SOURCE"
    quiet_pip --no-deps $force --index-url "$TORCH_INDEX_URL" torch torchvision
    torch_source >"$TORCH_SOURCE"
}

# Into a log, since pip prints a warning for every package and every place that it did not find it in.
quiet_pip() {
    if ! .venv/bin/python -m pip install --disable-pip-version-check -c constraints.txt "$@" >>"$LOG" 2>&1 </dev/null; then
        grep -v 'is ignored: it is neither a file nor a directory' "$LOG" | tail -n 15 >&2
        die "the installation failed, see above or $LOG; repeat the command to go on, or begin again with: make clean"
    fi
}

warn_of_idle_cuda() {
    for folder in .venv/lib/python3*/site-packages/nvidia; do
        [ -d "$folder" ] && ! command -v nvidia-smi >/dev/null || continue
        say "this torch is a CUDA build and no NVIDIA GPU was found: a CPU build (set TORCH_INDEX_URL to an index that has" \
            "it) takes 5 GB less on disk and 700 MB less memory in every process"
    done
}

main
