#!/bin/sh
# The first start makes the database; every start serves it, as the user postgres.
set -eu
if [ "$(id -u)" = 0 ]; then
  chown postgres:postgres "$PGDATA"
  chmod 0700 "$PGDATA"
  exec setpriv --reuid=postgres --regid=postgres --clear-groups "$0" "$@"
fi
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  umask 077
  password=$(mktemp)
  if [ -n "${POSTGRES_PASSWORD_FILE:-}" ]; then cat "$POSTGRES_PASSWORD_FILE"; else printf '%s' "$POSTGRES_PASSWORD"; fi >"$password"
  initdb --username="${POSTGRES_USER:=postgres}" --pwfile="$password" --auth-host=scram-sha-256 --encoding=UTF8 --locale=C >/dev/null
  rm -f "$password"
  echo 'host all all all scram-sha-256' >>"$PGDATA/pg_hba.conf"
  if [ "${POSTGRES_DB:-postgres}" != postgres ]; then
    echo "CREATE DATABASE \"$POSTGRES_DB\"" | postgres --single -jE postgres >/dev/null
  fi
fi
exec "$@" -c listen_addresses='*'
