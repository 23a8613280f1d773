#!/bin/sh
# The database password stands in a file (a secret of the container engine); libpq wants it in its environment.
set -eu
if [ -f /run/secrets/db_password ]; then
  PGPASSWORD=$(cat /run/secrets/db_password)
  export PGPASSWORD
fi
exec "$@"
