//go:build !sdk0148

package main

import (
	"context"
	"io"
	"time"

	apiclient "github.com/daytonaio/daytona/libs/api-client-go"
	"github.com/daytonaio/daytona/libs/sdk-go/pkg/daytona"
	"github.com/daytonaio/daytona/libs/sdk-go/pkg/types"
)

var release = calls{
	output: func(ctx context.Context, process *daytona.ProcessService, session, command string) any {
		logs := must(process.GetSessionCommandLogs(ctx, session, command))
		return []string{logs.GetStdout(), logs.GetStderr(), logs.GetOutput()}
	},
	stop: func(ctx context.Context, sandbox *daytona.Sandbox, timeout time.Duration, force bool) error {
		return sandbox.StopWithTimeout(ctx, timeout, force)
	},
	fork: func(ctx context.Context, sandbox *daytona.Sandbox) (*daytona.Sandbox, error) {
		return sandbox.ExperimentalFork(ctx, nil)
	},
	snapshot: func(ctx context.Context, sandbox *daytona.Sandbox, name string) error {
		return sandbox.ExperimentalCreateSnapshot(ctx, name)
	},
	signedPreview: func(ctx context.Context, sandbox *daytona.Sandbox, port int) (string, string, error) {
		link, err := sandbox.GetSignedPreviewLink(ctx, port, 60)
		if err != nil {
			return "", "", err
		}
		return link.URL, link.Token, nil
	},
	expirePreview: func(ctx context.Context, sandbox *daytona.Sandbox, port int, token string) error {
		return sandbox.ExpireSignedPreviewLink(ctx, port, token)
	},
	blockNetwork: func(ctx context.Context, sandbox *daytona.Sandbox, block bool) error {
		settings := apiclient.NewUpdateSandboxNetworkSettings()
		settings.SetNetworkBlockAll(block)
		return sandbox.UpdateNetworkSettings(ctx, *settings)
	},
	downloadStream: func(ctx context.Context, files *daytona.FileSystemService, path string) (io.ReadCloser, error) {
		return files.DownloadFileStream(ctx, path)
	},
	entrypoint: func(ctx context.Context, process *daytona.ProcessService) (string, int, error) {
		session, err := process.GetEntrypointSession(ctx)
		if err != nil {
			return "", 0, err
		}
		return session.GetSessionId(), len(session.GetCommands()), nil
	},
	entrypointLogs: func(ctx context.Context, process *daytona.ProcessService, stdout, stderr chan<- string) error {
		return process.GetEntrypointLogsStream(ctx, stdout, stderr)
	},
	plots: func(response *types.ExecuteResponse) []any {
		charts := []any{}
		for _, chart := range response.Artifacts.Charts {
			charts = append(charts, []any{chart.GetType(), chart.GetTitle(), len(chart.GetElements())})
		}
		return charts
	},
}
