#!/bin/sh
# core-prepare CONFIG TLS_FOLDER LABEL_FILE GATEWAY [claim's options]: what a city needs before anything of it can meet:
# the authority, the console's certificate, and the one-time code of the first gateway. What is there already stays.
set -eu
config=$1 tls=$2 label=$3 gateway=$4
shift 4
# The first of these makes the authority too. A certificate lives 397 days; one of more than 200 is made anew
if [ -z "$(find "$tls/server.pem" -mtime -200 2>/dev/null)" ]; then
  citybrain cloud ca server "$config" console localhost 127.0.0.1 --out "$tls"
fi
# A code that was used stays in its file and opens nothing. The gateway's container has another account: it must read it,
# and nobody else has this folder.
if [ ! -s "$label" ]; then
  said=$(citybrain cloud claim "$config" "$gateway" "$@" --plain)
  printf '%s\n' "${said##* }" > "$label.new"
  chmod 644 "$label.new"
  mv "$label.new" "$label"
fi
