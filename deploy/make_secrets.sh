#!/bin/sh
# make_secrets.sh [-o FOLDER]: the one secret that compose.yaml mounts, the database's password. Keys and certificates are
# made by the core itself. What is there already is kept. The folder is for its owner alone; the file in it must be readable
# by the containers' accounts.
set -eu
folder=$(dirname "$0")/secrets
while getopts o: option; do
  case $option in
    o) folder=$OPTARG ;;
    *) echo "usage: $0 [-o FOLDER]" >&2; exit 2 ;;
  esac
done
shift $((OPTIND - 1))
[ $# -eq 0 ] || { echo "usage: $0 [-o FOLDER]: gateways have no passwords; citybrain cloud claim lets one come" >&2; exit 2; }
mkdir -p "$folder"
chmod 700 "$folder"
umask 022
[ -s "$folder/db_password" ] || openssl rand -hex 24 | tr -d '\n' > "$folder/db_password"
echo "$folder: db_password"
