package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"

	"github.com/daytonaio/daytona/libs/sdk-go/pkg/daytona"
)

// rule is when a fault fires and what it does, in the words of the bench.
type rule map[string]any

// order tells the bench to make the next such request fail.
func order(ctx context.Context, when rule, kind string, action rule) {
	body := rule{"action": action}
	action["kind"] = kind
	for key, value := range when {
		body[key] = value
	}
	url := strings.TrimSuffix(os.Getenv("DAYTONA_API_URL"), "api") + "_sandyard/faults"
	request := must(http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(must(json.Marshal(body)))))
	request.Header.Set("Authorization", "Bearer "+os.Getenv("DAYTONA_API_KEY"))
	answer := must(http.DefaultClient.Do(request))
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusCreated {
		panic(fmt.Sprintf("%s: %s", answer.Status, must(io.ReadAll(answer.Body))))
	}
}

// faults: each ordered, then met. No argument: the key is of an organization of its own.
func faults(ctx context.Context, client *daytona.Client, _ []string, saw seen) {
	create, execute, logs := rule{"operation": "createSandbox"}, rule{"operation": "ExecuteCommand"}, rule{"operation": "GetSessionCommandLogs"}
	order(ctx, create, "status", rule{"status": 409, "message": "ordered conflict"})
	saw["create"] = refused(client.Create(ctx, nil))
	sandbox := must(client.Create(ctx, nil))
	process := sandbox.Process
	hello := func() [3]any { return refused(process.ExecuteCommand(ctx, "echo hello")) }
	order(ctx, execute, "status", rule{"status": 429, "message": "ordered limit"})
	saw["limit"] = hello()
	order(ctx, execute, "status", rule{"status": 404, "message": "ordered absence"})
	saw["absence"] = hello()
	order(ctx, execute, "status", rule{"status": 503, "message": "ordered pause"})
	saw["pause"] = hello()
	order(ctx, execute, "drop", rule{})
	saw["drop"] = hello()
	order(ctx, execute, "drop-after", rule{})
	saw["dropAfter"] = refused(process.ExecuteCommand(ctx, "echo done >> work"))
	saw["work"] = run(ctx, sandbox, "cat work")
	order(ctx, execute, "cut", rule{"bytes": 5})
	saw["cut"] = hello()

	check(process.CreateSession(ctx, "s"))
	listen := func(command string) []any {
		id := must(process.ExecuteSessionCommand(ctx, "s", command, true, false))["id"].(string)
		all, err := follow(func(stdout, stderr chan<- string) error {
			return process.GetSessionCommandLogsStream(ctx, "s", id, stdout, stderr)
		})
		last := 0.0
		if len(all) > 0 {
			last = all[len(all)-1].At
		}
		return []any{joined(all, "out"), told(err), last}
	}
	order(ctx, logs, "cut", rule{"bytes": 3 + 7})
	saw["streamCut"] = listen("printf 'aaaaabbbbbccccc'; sleep 1; echo end")
	order(ctx, logs, "close", rule{"code": 1011, "reason": "ordered end"})
	saw["streamClosed"] = listen("sleep 1; echo never")
	order(ctx, logs, "slice", rule{"bytes": 2})
	saw["slice"] = listen("echo pieces")
	order(ctx, logs, "stall", rule{"seconds": 0.5, "bytes": 2})
	saw["stall"] = listen("echo late")

	order(ctx, execute, "die", rule{})
	saw["die"] = hello()
	until(ctx, func() bool { check(sandbox.RefreshData(ctx)); return sandbox.State == "stopped" || sandbox.State == "error" })
	saw["state"] = sandbox.State
	check(sandbox.Delete(ctx))
}
