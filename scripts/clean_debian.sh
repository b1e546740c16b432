#!/bin/sh
# Try set-up as a newcomer meets it: a clean Debian with Python, git and make alone, a clone of HEAD, and `make run`.
#
#   sudo sh scripts/clean_debian.sh FOLDER [ARGS of seqpipe run all]
#
# FOLDER is made with debootstrap, and stays to be looked at; about 8 GB. DEBIAN_MIRROR and DEBIAN_RELEASE (stable) say what
# it is made from. Proxies and the system's certificates hold inside as they do outside.
set -eu
FOLDER=${1:?"say which folder to make it in"}
shift
RELEASE=${DEBIAN_RELEASE:-stable}
CLONE=/root/seqpipe

say() { printf '%s\n' "clean_debian: $*" >&2; }
inside() { chroot "$FOLDER" env -i HOME=/root TERM=dumb LANG=C.UTF-8 PATH=/usr/sbin:/usr/bin:/sbin:/bin "$@"; }
unmount() {
    for place in dev/shm dev proc; do
        ! mountpoint -q "$FOLDER/$place" || umount -l "$FOLDER/$place"
    done
}
trap unmount EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

[ "$(id -u)" = 0 ] || { say "debootstrap and chroot need root"; exit 1; }
command -v debootstrap >/dev/null || { say "debootstrap is missing (a package of that name)"; exit 1; }
cd "$(dirname "$0")/.."

if [ ! -e "$FOLDER/usr/bin/git" ]; then
    say "making a Debian $RELEASE in $FOLDER"
    debootstrap --variant=minbase --include=python3,python3-venv,git,make,ca-certificates,procps \
        "$RELEASE" "$FOLDER" ${DEBIAN_MIRROR:+"$DEBIAN_MIRROR"} >"$FOLDER.log" 2>&1 || { tail -n 5 "$FOLDER.log" >&2; exit 1; }
fi
mkdir -p "$FOLDER/dev" "$FOLDER/proc"
mount -t proc proc "$FOLDER/proc"
mount --bind /dev "$FOLDER/dev"
mount -t tmpfs tmpfs "$FOLDER/dev/shm"
cp /etc/resolv.conf /etc/hosts "$FOLDER/etc/"
rm -rf "$FOLDER$CLONE"
git clone -q --no-hardlinks . "$FOLDER$CLONE"
cp /etc/ssl/certs/ca-certificates.crt "$FOLDER/etc/ssl/certs/"
words=
for word in "$@"; do words="$words '$word'"; done

say "$(inside sh -c 'python3 -V; for c in cc gcc clang npm; do command -v $c || true; done' | tr '\n' ' ')"
began=$(date +%s)
outcome=0
inside ${https_proxy:+https_proxy="$https_proxy"} ${http_proxy:+http_proxy="$http_proxy"} ${no_proxy:+no_proxy="$no_proxy"} \
    ${PIP_CERT:+PIP_CERT=/etc/ssl/certs/ca-certificates.crt} \
    sh -c "cd $CLONE && time make run ARGS=\"$words\"" || outcome=$?
say "make run ended with $outcome after $(($(date +%s) - began)) s; .venv takes $(du -sm "$FOLDER$CLONE/.venv" | cut -f1) MB"
inside sh -c "cd $CLONE && .venv/bin/seqpipe doctor" || true
exit "$outcome"
