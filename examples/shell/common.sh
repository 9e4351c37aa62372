# What both programs need: authorised calls, one field of a JSON answer, a started sandbox that is gone at the end.
set -eu
: "${DAYTONA_API_URL:?is not set; try: eval \"\$(sandyard env)\"}" "${DAYTONA_API_KEY:?is not set}"

call() { curl -sS --fail-with-body -H "Authorization: Bearer $DAYTONA_API_KEY" "$@"; }
field() { python3 -c 'import json, sys; print(json.load(sys.stdin).get(sys.argv[1], ""))' "$1"; }

# Who creates is answered after a few seconds at most, with whatever state the sandbox is in by then.
wait_for_state() {
  deadline=$(($(date +%s) + 120))
  until [ "$(call "$DAYTONA_API_URL/sandbox/$sandbox" | field state)" = "$1" ]; do
    [ "$(date +%s)" -lt "$deadline" ] || { echo "the sandbox $sandbox is not $1" >&2; exit 1; }
    sleep 1
  done
}

made=$(call -X POST "$DAYTONA_API_URL/sandbox" -d '{}')
sandbox=$(printf %s "$made" | field id)
trap 'call -X DELETE "$DAYTONA_API_URL/sandbox/$sandbox" >/dev/null' EXIT
wait_for_state started
process=$(printf %s "$made" | field toolboxProxyUrl)/$sandbox/process
