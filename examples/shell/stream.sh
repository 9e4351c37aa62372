#!/bin/sh
# Watch a build while it runs. Following is one GET: it ends when the command has.
. "$(dirname "$0")/common.sh"

call -X POST "$process/session" -d '{"sessionId": "build"}'
build='{"runAsync": true, "command": "(for part in parser planner runtime; do echo compiling $part; sleep 1; echo warning: $part has no tests >&2; done; exit 3)"}'
command=$(call -X POST "$process/session/build/exec" -d "$build" | field cmdId)

call -N "$process/session/build/command/$command/logs?follow=true"
echo "the build ended with $(call "$process/session/build/command/$command" | field exitCode)"

echo "and once more, from byte 10 on:"
call -N "$process/session/build/command/$command/logs?follow=true&cursor=10"
