#!/bin/sh
# Try this commit as somebody with a clean Debian would: debootstrap into FOLDER, in it python3, git and make, no C compiler,
# and a clone; then `make run`, twice. Says how long each step took, what computes, and what it takes on disk.
#
#   sudo sh scripts/clean_debian.sh FOLDER [FLAGS of seqpipe run all]
#
# FOLDER is made, and kept for a look; remove it afterwards. Needs debootstrap and root, 5 to 30 minutes and up to 10 GB.
# Without FLAGS it trains one epoch on a tenth of CIFAR-10; where that cannot be fetched, name a folder that holds it in
# DATA_FOLDER, or give the flags --set data.source=synthetic.
#
#   DATA_FOLDER    is copied into the clone as data/
#   DEBIAN_SUITE   stable unless it says another
#   DEBIAN_MIRROR  where Debian's packages come from, if not from debootstrap's own default
#   PYTHON, TORCH_INDEX_URL, TORCH_CPU_INDEX_URL, PIP_INDEX_URL, http_proxy, https_proxy and no_proxy hold inside too
set -eu
unset CDPATH
cd "$(dirname "$0")/.."

PACKAGES=python3,python3-venv,git,make,ca-certificates
CLONE=/root/seqpipe
STEPS=

say() { printf '%s\n' "clean Debian: $*" >&2; }
die() { say "$*"; exit 1; }

main() {
    [ $# -gt 0 ] || die "name a folder to make it in: sh scripts/clean_debian.sh FOLDER [FLAGS of seqpipe run all]"
    folder=$1
    shift
    [ $# -gt 0 ] || set -- --set train.epochs=1 --set data.fraction=0.1
    [ "$(id -u)" = 0 ] || die "needs root, for debootstrap and chroot"
    command -v debootstrap >/dev/null || die "needs debootstrap: sudo apt install debootstrap"
    [ ! -e "$folder" ] || die "$folder is there already; name a folder that is not"
    mkdir -p "$folder"
    folder=$(cd "$folder" && pwd)

    step "debootstrap" debootstrap --variant=minbase --include="$PACKAGES" "${DEBIAN_SUITE:-stable}" "$folder" \
        ${DEBIAN_MIRROR:+"$DEBIAN_MIRROR"}
    copy_in
    ! within "command -v cc || command -v gcc || command -v clang" || die "there is a C compiler in it"
    step "make setup" within "make setup"
    step "make run" within 'make run ARGS="$*"' "$@"
    step "make run, repeated" within 'make run ARGS="$*"' "$@"
    report
}

step() {  # step NAME COMMAND...
    name=$1 started=$(date +%s)
    shift
    say "$name"
    "$@" >&2 || die "$name failed, after $(($(date +%s) - started)) s; $folder is left for a look"
    STEPS="$STEPS$(printf '%6d s  %s' $(($(date +%s) - started)) "$name")
"
}

copy_in() {
    git clone -q . "$folder$CLONE"
    [ -z "${DATA_FOLDER:-}" ] || cp -R "$DATA_FOLDER" "$folder$CLONE/data"
    cp -L /etc/resolv.conf "$folder/etc/resolv.conf"
    # a proxy of the network may sign with a certificate of its own
    [ ! -f /etc/ssl/certs/ca-certificates.crt ] || cp -L /etc/ssl/certs/ca-certificates.crt "$folder/etc/ssl/certs/"
}

# In the clone. Mounts and processes are in namespaces of their own, which end with their first process, and that with this
# script, whatever ends it.
within() {  # within SCRIPT ARGUMENTS...
    script=$1
    shift
    setpriv --pdeathsig KILL unshare --mount --pid --fork --kill-child --propagation private sh -ec '
        folder=$1
        shift
        mount --rbind /dev "$folder/dev"
        mount -t proc proc "$folder/proc"
        exec chroot "$folder" "$@"' sh "$folder" \
        /usr/bin/env -i HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 \
        ${http_proxy+"http_proxy=$http_proxy"} ${https_proxy+"https_proxy=$https_proxy"} ${no_proxy+"no_proxy=$no_proxy"} \
        ${PIP_INDEX_URL+"PIP_INDEX_URL=$PIP_INDEX_URL"} ${PYTHON+"PYTHON=$PYTHON"} \
        ${TORCH_INDEX_URL+"TORCH_INDEX_URL=$TORCH_INDEX_URL"} \
        ${TORCH_CPU_INDEX_URL+"TORCH_CPU_INDEX_URL=$TORCH_CPU_INDEX_URL"} \
        sh -c "cd $CLONE && $script" sh "$@"
}

report() {
    printf '\nDebian %s, %s, commit %s\n' "$(cat "$folder/etc/debian_version")" "$(within ".venv/bin/python -V")" \
        "$(git -C "$folder$CLONE" rev-parse --short HEAD)"
    printf '%s' "$STEPS"
    within ".venv/bin/seqpipe doctor" || :
    printf 'on disk: %s MB, of which .venv %s MB\n' "$(size_mb "$folder")" "$(size_mb "$folder$CLONE/.venv")"
}

size_mb() { du -smx "$1" | cut -f1; }

main "$@"; exit
