#!/bin/sh
# Cuts the lock files from pyproject.toml. Needs uv. The output names no registry, so any mirror will do.
set -eu
cd "$(dirname "$0")/.."
cut() { # name, extras, constraint
  extras=""; for e in $2; do extras="$extras --extra $e"; done
  # shellcheck disable=SC2086
  uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-header \
    --no-annotate $extras $3 -o "locks/$1.txt" pyproject.toml
}
cut dev "dev" ""
for name in edge vision cloud up; do cut "$name" "$name" "-c locks/dev.txt"; done
