#!/bin/sh
# check_install.sh [edge|vision|cloud ...]: the install steps of the images and of a gateway, for real, in empty
# environments: wheel, lock with hashes, nothing foreign inside, the sample configuration, the size. JSON lines on stdout.
# Needs a package index and some minutes. PYTHON chooses the interpreter.
set -eu
cd "$(dirname "$0")/.."
here=$(pwd)
python=${PYTHON:-python3}
[ $# -gt 0 ] || set -- edge vision cloud
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export PIP_DISABLE_PIP_VERSION_CHECK=1
unset PYTHONPATH PYTHONDONTWRITEBYTECODE    # nothing of the checkout, and byte code as a gateway would write it

say() { echo "$*" >&2; }
size() { du -sk "$1" | cut -f1; }
# byte code apart: how much of it there is depends on what has been run
bare() { find "$1" -type d -name __pycache__ -prune -exec rm -rf {} +; size "$1"; }

"$python" -m venv "$work/build"
say "wheel ..."
"$work/build/bin/python" -m pip wheel -q --no-deps -w "$work/wheel" "$here" 2>"$work/log" || { cat "$work/log" >&2; exit 1; }
wheel=$(ls "$work"/wheel/citybrain-*.whl)

limit() { case $1 in edge) echo 120 ;; vision) echo 550 ;; *) echo 0 ;; esac; }   # MiB without byte code; 0: none set
foreign() {                                                                       # what must not be importable
  case $1 in
    edge) echo "psycopg nicegui fastapi uvicorn SpiffWorkflow h3 argon2 onnxruntime cv2 av" ;;
    vision) echo "psycopg nicegui fastapi uvicorn SpiffWorkflow h3 argon2" ;;
    *) echo "onnxruntime cv2 av serial" ;;
  esac
}
failed=0
for extra; do
  say "$extra ..."
  env="$work/$extra"
  "$python" -m venv --without-pip "$env"
  pip() { "$work/build/bin/python" -m pip --python "$env/bin/python" "$@" 2>"$work/log" || { cat "$work/log" >&2; exit 1; }; }
  pip install -q --no-compile --require-hashes -r "locks/$extra.txt"
  pip install -q --no-compile --no-deps --no-index "$wheel"
  pip check >&2
  packages=$("$env/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
  installed=$(bare "$packages")
  cd "$work"                                    # out of the checkout: what is imported is what was installed
  for module in $(foreign "$extra"); do
    if "$env/bin/python" -c "import $module" 2>/dev/null; then say "$extra: $module has no business here"; failed=1; fi
  done
  case $extra in
    cloud) "$env/bin/python" -c "import cloud.app, cloud.ingest.worker, cloud.store.migrate" ;;
    *)
      "$env/bin/citybrain" edge check "$here/deploy/gateway/agent.toml" >&2
      "$env/bin/python" -c "import edge.agent, edge.connectors.modbus_bus, edge.connectors.dlt645_bus, edge.connectors.hj212_server" ;;
  esac
  [ "$extra" != vision ] || "$env/bin/python" -c "import edge.vision.worker, edge.vision.detector, edge.cameras"
  compiled=$(size "$packages")
  sh "$here/deploy/trim.sh" "$packages" >&2
  trimmed=$(bare "$packages")
  case $extra in
    cloud) "$env/bin/python" -c "import cloud.app, cloud.ingest.worker" ;;
    *) "$env/bin/citybrain" edge check "$here/deploy/gateway/agent.toml" >&2 ;;
  esac
  [ "$extra" != vision ] || "$env/bin/python" -c "import edge.vision.worker, edge.vision.detector"
  cd "$here"
  most=$(limit "$extra")
  if [ "$most" -gt 0 ] && [ "$installed" -gt $((most * 1024)) ]; then
    say "$extra: $((installed / 1024)) MiB installed, at most $most"
    failed=1
  fi
  printf '{"extra": "%s", "installed_kib": %s, "with_byte_code_in_use_kib": %s, "trimmed_kib": %s, "limit_mib": %s}\n' \
    "$extra" "$installed" "$compiled" "$trimmed" "$most"
done
exit $failed
