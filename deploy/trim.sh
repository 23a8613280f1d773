#!/bin/sh
# trim.sh SITE_PACKAGES: takes out of an installed environment what no part of citybrain ever loads, for gateways with a
# small disk and for the images: test suites of libraries, static libraries and headers, and the second (cffi) back end
# of zstandard where its C back end is there. Nothing of citybrain itself. Prints the size before and after.
set -eu
[ $# -eq 1 ] && [ -d "$1/zstandard" ] || { echo "usage: $0 SITE_PACKAGES (with citybrain's dependencies in it)" >&2; exit 2; }
size() { du -sk "$1" | cut -f1; }
before=$(size "$1")
find "$1" -type d \( -name tests -o -name test \) -path '*/*/*' -not -path "$1/pip/*" -prune -exec rm -rf {} +
find "$1/numpy" -type f \( -name '*.a' -o -name '*.h' \) -delete
if ls "$1"/zstandard/backend_c.*.so >/dev/null 2>&1; then rm -f "$1"/zstandard/_cffi.*.so "$1"/zstandard/backend_cffi.py; fi
echo "$1: $before KiB -> $(size "$1") KiB"
