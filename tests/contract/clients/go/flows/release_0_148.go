//go:build sdk0148

package main

import (
	"context"
	"time"

	"github.com/daytonaio/daytona/libs/sdk-go/pkg/daytona"
)

var release = calls{
	output: func(ctx context.Context, process *daytona.ProcessService, session, command string) any {
		return must(process.GetSessionCommandLogs(ctx, session, command))["logs"]
	},
	stop: func(ctx context.Context, sandbox *daytona.Sandbox, timeout time.Duration, _ bool) error {
		return sandbox.StopWithTimeout(ctx, timeout)
	},
	findOne: func(ctx context.Context, client *daytona.Client, labels map[string]string) (*daytona.Sandbox, error) {
		return client.FindOne(ctx, nil, labels)
	},
}
