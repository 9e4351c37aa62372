package main

import (
	"context"
	"io"
	"time"

	"github.com/daytonaio/daytona/libs/sdk-go/pkg/daytona"
	"github.com/daytonaio/daytona/libs/sdk-go/pkg/types"
)

// calls are those that not every release has, or that they spell differently. One that is nil is lacking.
type calls struct {
	// output is a command's log: text with markers, or both streams.
	output func(ctx context.Context, process *daytona.ProcessService, session, command string) any
	stop   func(ctx context.Context, sandbox *daytona.Sandbox, timeout time.Duration, force bool) error

	findOne        func(ctx context.Context, client *daytona.Client, labels map[string]string) (*daytona.Sandbox, error)
	fork           func(ctx context.Context, sandbox *daytona.Sandbox) (*daytona.Sandbox, error)
	snapshot       func(ctx context.Context, sandbox *daytona.Sandbox, name string) error
	signedPreview  func(ctx context.Context, sandbox *daytona.Sandbox, port int) (url, token string, err error)
	expirePreview  func(ctx context.Context, sandbox *daytona.Sandbox, port int, token string) error
	blockNetwork   func(ctx context.Context, sandbox *daytona.Sandbox, block bool) error
	downloadStream func(ctx context.Context, files *daytona.FileSystemService, path string) (io.ReadCloser, error)
	entrypoint     func(ctx context.Context, process *daytona.ProcessService) (session string, commands int, err error)
	entrypointLogs func(ctx context.Context, process *daytona.ProcessService, stdout, stderr chan<- string) error
	// plots gives type, title and number of elements of each chart that a run of code left.
	plots func(response *types.ExecuteResponse) []any
}
