#!/bin/sh
# Take a finished command's output, then look twice at the log of one that goes on.
. "$(dirname "$0")/common.sh"

call -X POST "$process/session" -d '{"sessionId": "check"}'
done=$(call -X POST "$process/session/check/exec" -d '{"command": "uname -s; ls /no-such-place"}')
echo "exit code $(printf %s "$done" | field exitCode)"
echo "said: $(printf %s "$done" | field stdout)"
echo "complained: $(printf %s "$done" | field stderr)"

ticking='{"runAsync": true, "command": "while sleep 0.5; do date +tick-%s; done"}'
command=$(call -X POST "$process/session/check/exec" -d "$ticking" | field cmdId)
for _ in 1 2; do
  sleep 2
  echo "$(call "$process/session/check/command/$command/logs" | grep -c tick-) ticks so far"
done
