#!/bin/sh
# A gateway in a container that has a label and no certificate yet enrols first; then whatever it was started for.
set -eu
state=${CITYBRAIN_STATE:-/var/lib/citybrain}
if [ -n "${CITYBRAIN_LABEL_FILE:-}" ] && [ ! -s "$state/identity/identity.pem" ]; then
  printf '[gateway]\nstate_dir = "%s"\n' "$state" > "$state/enrolled.toml"
  citybrain edge enrol "$state/enrolled.toml" --label - < "$CITYBRAIN_LABEL_FILE"
fi
exec "$@"
