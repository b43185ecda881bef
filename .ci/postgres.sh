#!/usr/bin/env bash
# Start a throw-away PostgreSQL on loopback and export its URL as PALATE_TEST_POSTGRES_URL.
#
#   source .ci/postgres.sh        exports the variable; the server stops when the shell ends
#   .ci/postgres.sh               prints the URL and leaves the server running
#   .ci/postgres.sh stop DIR      stops the server of that folder and removes it
#
# PostgreSQL is installed from Debian when it is missing. The data go to a new folder under /tmp, are
# not flushed to disk (fsync off) and are readable by the server's user only.

palate_postgres_bin() {
  local newest
  newest=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -n 1)
  if [ -z "$newest" ]; then
    apt-get update -q >&2 && DEBIAN_FRONTEND=noninteractive apt-get install -q -y postgresql >&2
    newest=$(ls -d /usr/lib/postgresql/*/bin | sort -V | tail -n 1)
  fi
  echo "$newest"
}

palate_postgres_as() { # runs a command as a user that PostgreSQL accepts
  if [ "$(id -u)" = 0 ]; then runuser -u postgres -- "$@"; else "$@"; fi
}

palate_postgres_stop() {
  palate_postgres_as "$(palate_postgres_bin)/pg_ctl" -D "$1/data" -m immediate stop >&2 || true
  rm -rf "$1"
}

palate_postgres_start() {
  local bin folder port
  bin=$(palate_postgres_bin)
  folder=$(mktemp -d /tmp/palate-postgres.XXXXXX)
  PALATE_TEST_POSTGRES_FOLDER=$folder # known from here on, so that a failed start is cleaned up too
  if [ "$(id -u)" = 0 ]; then chown postgres "$folder"; fi
  port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
  palate_postgres_as "$bin/initdb" -D "$folder/data" -U palate -A trust -E UTF8 --locale=C >&2
  palate_postgres_as "$bin/pg_ctl" -D "$folder/data" -w -l "$folder/log" \
    -o "-c listen_addresses=127.0.0.1 -c port=$port -c unix_socket_directories='' -c fsync=off" \
    start >&2
  palate_postgres_as "$bin/createdb" -h 127.0.0.1 -p "$port" -U palate palate >&2
  PALATE_TEST_POSTGRES_URL="postgresql://palate@127.0.0.1:$port/palate"
  export PALATE_TEST_POSTGRES_URL PALATE_TEST_POSTGRES_FOLDER
}

if [ "${BASH_SOURCE[0]}" != "$0" ]; then
  PALATE_TEST_POSTGRES_FOLDER=
  trap '[ -z "$PALATE_TEST_POSTGRES_FOLDER" ] || palate_postgres_stop "$PALATE_TEST_POSTGRES_FOLDER"' EXIT
  palate_postgres_start
elif [ "${1:-}" = stop ]; then
  palate_postgres_stop "$2"
else
  set -euo pipefail
  palate_postgres_start
  echo "$PALATE_TEST_POSTGRES_URL"
fi
