#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Installs the packages of sim/packages.txt that are missing, as root or with sudo, and says which.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
packages=$(sed 's/#.*//' "$here/packages.txt")

if ! command -v dpkg-query >/dev/null 2>&1; then
    echo "This is no Debian system; please see that these are there:" $packages >&2
    exit 0
fi
missing=
for package in $packages; do
    state=$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null || true)
    [ "$state" = installed ] || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

echo "Installing with apt:$missing" >&2
as_root=
if [ "$(id -u)" -ne 0 ]; then
    if ! command -v sudo >/dev/null 2>&1; then
        echo "Neither root nor sudo: please install$missing and run this again." >&2
        exit 69
    fi
    as_root=sudo
fi
$as_root apt-get update -qq >&2
$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >&2
