#!/bin/sh
# make_secrets.sh [-o FOLDER] [-n BROKER_NAME] GATEWAY:SHARD ...
# Writes what compose.yaml mounts as secrets: passwords, a small certificate authority of your own with the broker's
# certificate, and the broker's users with their rights. What is there already is kept, so it may be run again to add a
# gateway. The folder is for its owner alone; the files in it must be readable by the containers' accounts.
set -eu
folder=$(dirname "$0")/secrets
name=broker
while getopts o:n: option; do
  case $option in
    o) folder=$OPTARG ;;
    n) name=$OPTARG ;;
    *) exit 2 ;;
  esac
done
shift $((OPTIND - 1))
[ $# -gt 0 ] || { echo "usage: $0 [-o FOLDER] [-n BROKER_NAME] GATEWAY:SHARD ..." >&2; exit 2; }
for gateway; do
  case $gateway in
    *[!a-z0-9:-]* | :* | *: | -* | *:*:*) echo "$gateway: expected GATEWAY:SHARD, lower-case letters, digits, hyphens" >&2; exit 2 ;;
    *:*[!0-9]*) echo "$gateway: the shard is a number, 0 to 63" >&2; exit 2 ;;
    *:*) [ "${gateway#*:}" -le 63 ] || { echo "$gateway: the shard is 0 to 63" >&2; exit 2; } ;;
    *) echo "$gateway: expected GATEWAY:SHARD" >&2; exit 2 ;;
  esac
done

mkdir -p "$folder"
chmod 700 "$folder"
umask 022
password() { # name
  [ -s "$folder/$1" ] || openssl rand -hex 24 | tr -d '\n' > "$folder/$1"
}
password db_password
password mqtt_core

if [ ! -s "$folder/ca.crt" ]; then
  (umask 077; openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -subj "/CN=citybrain broker CA" \
    -addext "basicConstraints=critical,CA:TRUE,pathlen:0" -addext "keyUsage=critical,keyCertSign,cRLSign" \
    -keyout "$folder/ca.key" -out "$folder/ca.crt" 2>/dev/null)
  chmod 644 "$folder/ca.crt"
fi
if [ ! -s "$folder/broker.crt" ]; then
  extensions=$(mktemp)
  printf 'subjectAltName=DNS:%s,DNS:broker,DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth\nkeyUsage=critical,digitalSignature\nbasicConstraints=CA:FALSE\n' "$name" > "$extensions"
  openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$name" -keyout "$folder/broker.key" 2>/dev/null \
    | openssl x509 -req -days 825 -CA "$folder/ca.crt" -CAkey "$folder/ca.key" -extfile "$extensions" -out "$folder/broker.crt" 2>/dev/null
  rm -f "$extensions"
  chmod 644 "$folder/broker.key"
fi

touch "$folder/gateways"
for gateway; do
  id=${gateway%:*}
  known=$(grep "^$id:" "$folder/gateways" || true)
  if [ -n "$known" ] && [ "$known" != "$gateway" ]; then
    echo "$id lives in shard ${known#*:} and stays there" >&2
    exit 1
  fi
  [ -n "$known" ] || echo "$gateway" >> "$folder/gateways"
  password "mqtt_$id"
done

# By MQTT alone. Rights in NATS subjects: MQTT's cb/v1/5/gw/up/data is cb.v1.5.gw.up.data; $MQTT.sub.> is how QoS 1 is delivered.
{
  echo 'users: ['
  printf '    {user: core, password: "%s", allowed_connection_types: ["MQTT"]}\n' "$(cat "$folder/mqtt_core")"
  while IFS=: read -r id shard; do
    printf '    {user: "%s", password: "%s", allowed_connection_types: ["MQTT"], permissions: {publish: ["cb.v1.%s.%s.up.*", "$MQTT.sub.>", "$MQTT.deliver.pubrel.>"], subscribe: ["cb.v1.%s.%s.down.*", "$MQTT.sub.>"]}}\n' \
      "$id" "$(cat "$folder/mqtt_$id")" "$shard" "$id" "$shard" "$id"
  done < "$folder/gateways"
  echo ']'
} > "$folder/nats_users.conf"
echo "$folder: $(wc -l < "$folder/gateways" | tr -d ' ') gateway(s)"
