package main

import (
	"context"
	"time"

	"github.com/daytonaio/daytona/libs/sdk-go/pkg/daytona"
	"github.com/daytonaio/daytona/libs/sdk-go/pkg/options"
	"github.com/daytonaio/daytona/libs/sdk-go/pkg/types"
)

// refusals: what the SDK makes of each kind of error. Argument: a sandbox.
func refusals(ctx context.Context, client *daytona.Client, arguments []string, saw seen) {
	saw["unknown"] = refused(client.Get(ctx, "no-such-sandbox"))
	saw["unknownName"] = refused(client.Get(ctx, "with a/slash"))
	stranger := must(daytona.NewClientWithConfig(&types.DaytonaConfig{APIKey: "sy_nobody"}))
	saw["wrongKey"] = refused(stranger.List(ctx, nil, nil, nil))
	saw["wrongKeyCreate"] = refused(stranger.Create(ctx, nil))
	saw["unknownSnapshot"] = refused(client.Create(ctx, types.SnapshotParams{Snapshot: "no-such-snapshot"}))
	saw["badPage"] = refused(client.List(ctx, nil, pointer(1), pointer(100_000)))
	saw["unknownTarget"] = refused(must(daytona.NewClientWithConfig(&types.DaytonaConfig{Target: "nowhere"})).Create(ctx, nil))
	saw["nowhere"] = refused(must(daytona.NewClientWithConfig(&types.DaytonaConfig{APIUrl: "http://127.0.0.1:9/api"})).Get(ctx, "x"))
	saw["limited"] = refused(client.Create(ctx, nil, options.WithTimeout(time.Millisecond)))

	sandbox := must(client.Get(ctx, arguments[0]))
	ran := must(sandbox.Process.ExecuteCommand(ctx, "true", options.WithCwd("/no/such/place")))
	saw["badCwd"] = []any{ran.ExitCode, ran.Result}
	saw["emptyCommand"] = refused(sandbox.Process.ExecuteCommand(ctx, ""))
	saw["badSession"] = told(sandbox.Process.CreateSession(ctx, ""))
	saw["reserved"] = told(sandbox.Process.CreateSession(ctx, "entrypoint"))
	saw["noDesktop"] = told(sandbox.ComputerUse.Start(ctx))
}
