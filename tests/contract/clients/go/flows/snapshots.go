package main

import (
	"context"
	"strings"

	"github.com/daytonaio/daytona/libs/sdk-go/pkg/daytona"
	"github.com/daytonaio/daytona/libs/sdk-go/pkg/options"
	"github.com/daytonaio/daytona/libs/sdk-go/pkg/types"
)

// snapshot makes one and gives it as it is when its log has ended, and that log.
func snapshot(ctx context.Context, client *daytona.Client, params types.CreateSnapshotParams) (*types.Snapshot, string) {
	made, logs, err := client.Snapshot.Create(ctx, &params)
	check(err)
	var said strings.Builder
	for line := range logs {
		said.WriteString(line + "\n")
	}
	return must(client.Snapshot.Get(ctx, made.ID)), said.String()
}

// from makes a sandbox from an image, listens to its build and gives what a command printed in it.
func from(ctx context.Context, client *daytona.Client, image any, command string) (result any, said string) {
	logs, all := make(chan string, 100), make(chan string, 1)
	go func() {
		var text strings.Builder
		for line := range logs {
			text.WriteString(line + "\n")
		}
		all <- text.String()
	}()
	sandbox, err := client.Create(ctx, types.ImageParams{Image: image, Resources: &types.Resources{CPU: 1, Memory: 1, Disk: 3}},
		options.WithLogChannel(logs))
	if err != nil {
		result = told(err)
	} else {
		result = []any{sandbox.State, run(ctx, sandbox, command)}
		check(sandbox.Delete(ctx))
	}
	select { // the SDK closes the channel only where there was something to build
	case said = <-all:
	case <-ctx.Done():
	}
	return result, said
}

// snapshots: from images, from Dockerfiles with local files, from a sandbox. Arguments: a name, a file, a folder.
func snapshots(ctx context.Context, client *daytona.Client, arguments []string, saw seen) {
	name, file, folder := arguments[0], arguments[1], arguments[2]
	image := daytona.Base("busybox:latest").
		AddLocalFile(file, "/data/file.txt").
		AddLocalDir(folder, "/data/folder").
		Env("GREETING", "hi").
		Run("echo from-the-build; sleep 2").
		Run("echo the-end")
	read := "cat /data/file.txt /data/folder/sub/deep.txt; echo $GREETING"

	made, said := snapshot(ctx, client, types.CreateSnapshotParams{
		Name: name, Image: image, Resources: &types.Resources{CPU: 2, Memory: 2, Disk: 4},
	})
	saw["made"] = []any{made.Name == name, made.State, made.CPU, made.Memory, made.Disk}
	saw["logs"] = said
	listed := false
	for _, each := range must(client.Snapshot.List(ctx, pointer(1), pointer(100))).Items {
		listed = listed || each.ID == made.ID
	}
	saw["listed"] = listed
	sandbox := must(client.Create(ctx, types.SnapshotParams{Snapshot: name}))
	saw["read"] = run(ctx, sandbox, read)
	check(sandbox.Delete(ctx))
	_, _, err := client.Snapshot.Create(ctx, &types.CreateSnapshotParams{Name: name, Image: "busybox:1"})
	saw["taken"] = told(err)

	// The SDK looks for the log after a second, and gives up when the sandbox has started: steps that are cached are faster.
	built, buildLogs := from(ctx, client, image.Run("sleep 4").Entrypoint([]string{"sleep", "5000"}), read)
	saw["built"], saw["buildLogs"] = built, buildLogs

	plain, said := snapshot(ctx, client, types.CreateSnapshotParams{
		Name: name + "-plain", Image: "debian:bookworm-slim", Entrypoint: []string{"sleep", "infinity"},
	})
	saw["plain"] = []any{plain.State, plain.ImageName, plain.Entrypoint, plain.Size != nil && *plain.Size > 0}
	saw["plainLogs"] = said
	written, _ := snapshot(ctx, client, types.CreateSnapshotParams{
		Name: name + "-file", Image: daytona.FromDockerfile("FROM busybox:latest\nWORKDIR /tmp\nRUN echo written > note\n"),
	})
	saw["written"] = written.State

	failing := daytona.Base("busybox:latest").Run("echo going down; sleep 2; exit 9")
	failed, said := snapshot(ctx, client, types.CreateSnapshotParams{Name: name + "-bad", Image: failing})
	saw["failed"] = []any{failed.State, failed.ErrorReason}
	saw["failedLogs"] = said
	saw["useFailed"] = refused(client.Create(ctx, types.SnapshotParams{Snapshot: name + "-bad"}))
	saw["failedSandbox"], _ = from(ctx, client, failing, "true")
	saw["noSuchFile"] = refused(client.Create(ctx, types.ImageParams{Image: daytona.Base("busybox:latest").AddLocalFile("/no/such/file", "/x")}))

	saw["fromSandbox"] = any(lacking)
	if release.snapshot != nil {
		source := must(client.Create(ctx, nil))
		_ = run(ctx, source, "echo kept > ~/kept.txt")
		check(release.snapshot(ctx, source, name+"-kept"))
		check(source.Delete(ctx))
		copied := must(client.Create(ctx, types.SnapshotParams{Snapshot: name + "-kept"}))
		saw["fromSandbox"] = run(ctx, copied, "cat ~/kept.txt")
		check(copied.Delete(ctx))
		check(client.Snapshot.Delete(ctx, must(client.Snapshot.Get(ctx, name+"-kept"))))
	}
	for _, each := range []*types.Snapshot{made, plain, written, failed} {
		check(client.Snapshot.Delete(ctx, each))
	}
	saw["gone"] = refused(client.Snapshot.Get(ctx, name))
}
