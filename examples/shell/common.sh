# What both programs need: authorised calls, one field of a JSON answer, a sandbox that is gone at the end.
set -eu
: "${DAYTONA_API_URL:?is not set; try: eval \"\$(sandyard env)\"}" "${DAYTONA_API_KEY:?is not set}"

call() { curl -sS --fail-with-body -H "Authorization: Bearer $DAYTONA_API_KEY" "$@"; }
field() { python3 -c 'import json, sys; print(json.load(sys.stdin).get(sys.argv[1], ""))' "$1"; }

made=$(call -X POST "$DAYTONA_API_URL/sandbox" -d '{}')
sandbox=$(printf %s "$made" | field id)
trap 'call -X DELETE "$DAYTONA_API_URL/sandbox/$sandbox" >/dev/null' EXIT
process=$(printf %s "$made" | field toolboxProxyUrl)/$sandbox/process
