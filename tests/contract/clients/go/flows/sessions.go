package main

import (
	"context"
	"fmt"
	"net/http/httptrace"
	"strings"
	"sync"
	"time"

	"github.com/daytonaio/daytona/libs/sdk-go/pkg/daytona"
)

// heard is one piece of a log as the SDK handed it out.
type heard struct {
	Stream string  `json:"stream"`
	Text   string  `json:"text"`
	At     float64 `json:"at"`
}

// follow listens to both channels that `stream` fills and closes, and gives what came and how it ended. `hear` is
// called with how much came so far.
func follow(stream func(stdout, stderr chan<- string) error, hear ...func(count int)) ([]heard, error) {
	began, all := time.Now(), []heard{}
	keep := func(name, text string) {
		all = append(all, heard{name, text, time.Since(began).Seconds()})
		for _, each := range hear {
			each(len(all))
		}
	}
	stdout, stderr, ended := make(chan string, 10), make(chan string, 10), make(chan error, 1)
	go func() { ended <- stream(stdout, stderr) }()
	for out, err := stdout, stderr; out != nil || err != nil; {
		select {
		case text, open := <-out:
			if !open {
				out = nil
				continue
			}
			keep("out", text)
		case text, open := <-err:
			if !open {
				err = nil
				continue
			}
			keep("err", text)
		}
	}
	return all, <-ended
}

// joined is one stream of what was heard.
func joined(all []heard, stream string) string {
	var text strings.Builder
	for _, each := range all {
		if each.Stream == stream {
			text.WriteString(each.Text)
		}
	}
	return text.String()
}

// sessions: commands that wait and commands that are followed, early and late. Argument: a sandbox of this flow's own.
func sessions(ctx context.Context, client *daytona.Client, arguments []string, saw seen) {
	sandbox := must(client.Get(ctx, arguments[0]))
	process := sandbox.Process
	check(process.CreateSession(ctx, "work"))
	saw["duplicate"] = told(process.CreateSession(ctx, "work"))
	done := must(process.ExecuteSessionCommand(ctx, "work", "echo so; echo no >&2; (exit 4)", false, false))
	saw["sync"] = []any{done["exitCode"], done["stdout"], done["stderr"]}
	saw["log"] = release.output(ctx, process, "work", done["id"].(string))
	_ = must(process.ExecuteSessionCommand(ctx, "work", "cd /usr; export KEPT=yes", false, false))
	saw["kept"] = must(process.ExecuteSessionCommand(ctx, "work", "pwd; echo $KEPT", false, false))["stdout"]

	// Each pair of lines waits until the one before was heard; one that was not while it waited makes the end a failure.
	wait := "for n in $(seq 400); do [ -e ~/heard$i ] && break; sleep 0.05; done; [ -e ~/heard$i ] || late=1"
	command := "for i in 1 2 3; do echo out$i; echo err$i >&2; " + wait + "; done; printf 'a€\\nlast'; exit ${late:-0}"
	started := must(process.ExecuteSessionCommand(ctx, "work", command, true, false))
	id := started["id"].(string)
	_, saw["exitCodeAtOnce"] = started["exitCode"]
	all, err := follow(func(stdout, stderr chan<- string) error {
		return process.GetSessionCommandLogsStream(ctx, "work", id, stdout, stderr)
	}, func(count int) {
		if count%2 == 0 && count <= 6 {
			run(ctx, sandbox, fmt.Sprintf("touch ~/heard%d", count/2))
		}
	})
	check(err)
	saw["followed"] = all
	status := must(process.GetSessionCommand(ctx, "work", id))
	saw["status"] = []any{status["exitCode"], status["command"] == command}
	all, err = follow(func(stdout, stderr chan<- string) error {
		return process.GetSessionCommandLogsStream(ctx, "work", id, stdout, stderr)
	})
	check(err)
	saw["late"] = []string{joined(all, "out"), joined(all, "err")}

	check(process.CreateSession(ctx, "loud"))
	loud := must(process.ExecuteSessionCommand(ctx, "loud", "seq 1 200000; seq 1 1000 >&2", true, false))
	all, err = follow(func(stdout, stderr chan<- string) error {
		return process.GetSessionCommandLogsStream(ctx, "loud", loud["id"].(string), stdout, stderr)
	})
	check(err)
	lines := strings.Fields(joined(all, "out"))
	saw["loud"] = []any{len(lines), lines[0], lines[len(lines)-1], len(strings.Fields(joined(all, "err")))}

	_ = must(process.ExecuteSessionCommand(ctx, "loud", "sleep 1000", true, false))
	names := []string{}
	for _, session := range must(process.ListSessions(ctx)) {
		names = append(names, session["sessionId"].(string))
	}
	saw["listed"] = names
	saw["session"] = must(process.GetSession(ctx, "loud"))["sessionId"]
	check(process.DeleteSession(ctx, "loud"))
	saw["deletedAgain"] = told(process.DeleteSession(ctx, "loud"))
	saw["unknownSession"] = refused(process.GetSession(ctx, "loud"))
	saw["unknownCommand"] = refused(process.GetSessionCommand(ctx, "work", "nothing"))
	_, err = follow(func(stdout, stderr chan<- string) error {
		return process.GetSessionCommandLogsStream(ctx, "work", "nothing", stdout, stderr)
	})
	saw["unknownFollowed"] = told(err)

	saw["entrypoint"], saw["entrypointLogs"] = lacking, lacking
	if release.entrypoint != nil {
		name, commands, err := release.entrypoint(ctx, process)
		check(err)
		saw["entrypoint"] = []any{name != "", commands}
		// Its log goes on for as long as the sandbox runs. Stopped before it is followed, there would be none.
		stopping := make(chan error, 1)
		stop := sync.OnceFunc(func() { go func() { stopping <- sandbox.Stop(ctx) }() })
		_, err = follow(func(stdout, stderr chan<- string) error {
			defer stop()
			answered := httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotFirstResponseByte: stop})
			return release.entrypointLogs(answered, process, stdout, stderr)
		})
		check(<-stopping)
		saw["entrypointLogs"] = told(err)
	}
}
