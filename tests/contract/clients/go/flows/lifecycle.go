package main

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	apiclient "github.com/daytonaio/daytona/libs/api-client-go"
	"github.com/daytonaio/daytona/libs/sdk-go/pkg/daytona"
	"github.com/daytonaio/daytona/libs/sdk-go/pkg/options"
	"github.com/daytonaio/daytona/libs/sdk-go/pkg/types"
)

const serve = `python3 -c "
import http.server
class Hello(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(b'served')
http.server.HTTPServer(('127.0.0.1', 3456), Hello).serve_forever()"`

// labelled gives the ids that carry these labels, by pages of one.
func labelled(ctx context.Context, client *daytona.Client, labels map[string]string) []string {
	ids := []string{}
	for page := 1; ; page++ {
		found := must(client.List(ctx, labels, &page, pointer(1)))
		for _, each := range found.Items {
			ids = append(ids, each.ID)
		}
		if page >= found.TotalPages {
			return ids
		}
	}
}

// browser finds every name below localhost on this machine, as browsers and curl do and Go does not.
var browser = http.Client{Transport: &http.Transport{
	DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		host, port, err := net.SplitHostPort(address)
		if err == nil && strings.HasSuffix(host, ".localhost") {
			address = net.JoinHostPort("127.0.0.1", port)
		}
		return (&net.Dialer{}).DialContext(ctx, network, address)
	},
}}

// get is what a preview URL answers with this token.
func get(ctx context.Context, url, token string) string {
	request := must(http.NewRequestWithContext(ctx, http.MethodGet, url, nil))
	if token != "" {
		request.Header.Set("x-daytona-preview-token", token)
	}
	answer, err := browser.Do(request)
	if err != nil {
		return err.Error()
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return answer.Status
	}
	return string(must(io.ReadAll(answer.Body)))
}

// lifecycle: create with every parameter, find, change, stop, start, archive, fork, delete. Argument: a name nobody has.
func lifecycle(ctx context.Context, client *daytona.Client, arguments []string, saw seen) {
	name := arguments[0]
	sandbox := must(client.Create(ctx, types.SnapshotParams{SandboxBaseParams: types.SandboxBaseParams{
		Name:                name,
		Labels:              map[string]string{"mark": name, "kind": "a"},
		EnvVars:             map[string]string{"GREETING": "hi there"},
		Language:            types.CodeLanguagePython,
		AutoStopInterval:    pointer(31),
		AutoArchiveInterval: pointer(32),
		AutoDeleteInterval:  pointer(33),
	}}, options.WithTimeout(60*time.Second)))
	defer func() { check(sandbox.Delete(ctx)) }()
	saw["id"] = sandbox.ID
	saw["created"] = []any{sandbox.State, sandbox.Name == name, sandbox.AutoArchiveInterval, sandbox.AutoDeleteInterval}
	saw["environment"] = run(ctx, sandbox, "echo $GREETING; echo kept > ~/note")
	saw["byName"] = must(client.Get(ctx, name)).ID == sandbox.ID
	saw["taken"] = refused(client.Create(ctx, types.SnapshotParams{SandboxBaseParams: types.SandboxBaseParams{Name: name}}))
	saw["listed"] = labelled(ctx, client, map[string]string{"mark": name})
	check(sandbox.SetLabels(ctx, map[string]string{"mark": name, "kind": "b"}))
	saw["relabelled"] = [2]any{
		labelled(ctx, client, map[string]string{"mark": name, "kind": "a"}),
		labelled(ctx, client, map[string]string{"mark": name, "kind": "b"}),
	}
	saw["findOne"], saw["findNone"] = lacking, lacking
	if release.findOne != nil {
		saw["findOne"] = must(release.findOne(ctx, client, map[string]string{"mark": name})).ID == sandbox.ID
		saw["findNone"] = refused(release.findOne(ctx, client, map[string]string{"mark": name + "-none"}))
	}
	check(sandbox.SetAutoArchiveInterval(ctx, pointer(60)))
	check(sandbox.SetAutoDeleteInterval(ctx, pointer(-1)))
	again := must(client.Get(ctx, sandbox.ID))
	saw["intervals"] = []any{again.AutoArchiveInterval, again.AutoDeleteInterval}
	saw["badInterval"] = told(sandbox.SetAutoArchiveInterval(ctx, pointer(-5)))

	previews(ctx, sandbox, saw)

	saw["fork"] = any(lacking)
	if release.fork != nil {
		fork := must(release.fork(ctx, sandbox))
		saw["fork"] = []any{fork.State, run(ctx, fork, "cat ~/note"), fork.ID != sandbox.ID}
		check(fork.Delete(ctx))
		until(ctx, func() bool { return gone(ctx, client, fork.ID) })
	}
	saw["network"] = any(lacking)
	if release.blockNetwork != nil {
		blocking := told(release.blockNetwork(ctx, sandbox, true))
		blocked := must(client.Get(ctx, sandbox.ID)).NetworkBlockAll
		check(release.blockNetwork(ctx, sandbox, false))
		saw["network"] = []any{blocking[2], blocked, must(client.Get(ctx, sandbox.ID)).NetworkBlockAll}
	}
	closed, err := client.Create(ctx, types.SnapshotParams{SandboxBaseParams: types.SandboxBaseParams{NetworkBlockAll: true}})
	saw["closed"] = told(err)[2]
	if err == nil {
		saw["closed"] = closed.NetworkBlockAll
		check(closed.Delete(ctx))
	}

	saw["archiveEarly"] = told(sandbox.Archive(ctx))
	check(release.stop(ctx, sandbox, 30*time.Second, true))
	saw["stopped"] = sandbox.State
	saw["whileStopped"] = refused(sandbox.Process.ExecuteCommand(ctx, "true"))
	check(sandbox.Archive(ctx))
	until(ctx, func() bool { check(sandbox.RefreshData(ctx)); return sandbox.State != apiclient.SANDBOXSTATE_ARCHIVING })
	saw["archived"] = sandbox.State
	check(sandbox.Start(ctx))
	saw["restored"] = []any{sandbox.State, run(ctx, sandbox, "cat ~/note")}
	check(sandbox.Stop(ctx))
	check(sandbox.StartWithTimeout(ctx, 30*time.Second))
	saw["again"] = sandbox.State

	short := must(client.Create(ctx, types.SnapshotParams{
		SandboxBaseParams: types.SandboxBaseParams{Ephemeral: true, Language: types.CodeLanguageTypeScript},
	}, options.WithWaitForStart(false)))
	check(short.WaitForStart(ctx, 30*time.Second))
	saw["ephemeral"] = []any{short.State, short.AutoDeleteInterval}
	// It is never `stopped`, which is all that these releases wait for.
	saw["ephemeralStop"] = told(release.stop(ctx, short, 2*time.Second, false))[0]
	until(ctx, func() bool { return gone(ctx, client, short.ID) })
	saw["ephemeralGone"] = true
}

// gone is whether nobody can use it any more.
func gone(ctx context.Context, client *daytona.Client, id string) bool {
	found, err := client.Get(ctx, id)
	return err != nil || found.State == apiclient.SANDBOXSTATE_DESTROYED
}

// previews of a server inside: by token, by signed URL, and none without either.
func previews(ctx context.Context, sandbox *daytona.Sandbox, saw seen) {
	check(sandbox.Process.CreateSession(ctx, "serve"))
	_ = must(sandbox.Process.ExecuteSessionCommand(ctx, "serve", serve, true, false))
	link := must(sandbox.GetPreviewLink(ctx, 3456))
	until(ctx, func() bool { return get(ctx, link.URL, link.Token) == "served" })
	saw["preview"] = get(ctx, link.URL, link.Token)
	saw["previewWithout"] = !strings.Contains(get(ctx, link.URL, "x"), "served")
	saw["signed"] = any(lacking)
	if release.signedPreview != nil {
		url, token, err := release.signedPreview(ctx, sandbox, 3456)
		check(err)
		before := get(ctx, url, "")
		check(release.expirePreview(ctx, sandbox, 3456, token))
		saw["signed"] = []any{before, strings.Contains(get(ctx, url, ""), "served")}
	}
}
