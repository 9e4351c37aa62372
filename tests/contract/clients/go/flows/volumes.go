package main

import (
	"context"
	"time"

	"github.com/daytonaio/daytona/libs/sdk-go/pkg/daytona"
	"github.com/daytonaio/daytona/libs/sdk-go/pkg/types"
)

// with makes a sandbox with one mount.
func with(ctx context.Context, client *daytona.Client, mount types.VolumeMount) (*daytona.Sandbox, error) {
	return client.Create(ctx, types.SnapshotParams{SandboxBaseParams: types.SandboxBaseParams{Volumes: []types.VolumeMount{mount}}})
}

func isListed(ctx context.Context, client *daytona.Client, id string) bool {
	for _, each := range must(client.Volume.List(ctx)) {
		if each.ID == id {
			return true
		}
	}
	return false
}

// volumes: one that two sandboxes share, one of them by a subpath. Argument: a name nobody has.
func volumes(ctx context.Context, client *daytona.Client, arguments []string, saw seen) {
	name := arguments[0]
	volume := must(client.Volume.WaitForReady(ctx, must(client.Volume.Create(ctx, name)), 30*time.Second))
	saw["made"] = []any{volume.Name == name, volume.State, time.Since(volume.CreatedAt) < time.Hour}
	saw["taken"] = refused(client.Volume.Create(ctx, name))
	one := must(with(ctx, client, types.VolumeMount{VolumeID: volume.ID, MountPath: "/data"}))
	two := must(with(ctx, client, types.VolumeMount{VolumeID: name, MountPath: "/part", Subpath: pointer("a/b")}))
	_ = run(ctx, one, "echo shared > /data/a/b/file; echo hidden > /data/file")
	saw["read"] = run(ctx, two, "cat /part/file; ls /part")
	saw["listed"] = isListed(ctx, client, volume.ID)
	saw["inUse"] = told(client.Volume.Delete(ctx, volume))
	saw["badPath"] = refused(with(ctx, client, types.VolumeMount{VolumeID: volume.ID, MountPath: "data"}))
	saw["unknownMount"] = refused(with(ctx, client, types.VolumeMount{VolumeID: "nobody", MountPath: "/data"}))
	check(one.Delete(ctx))
	check(two.Delete(ctx))
	until(ctx, func() bool { return client.Volume.Delete(ctx, volume) == nil }) // Delete of a sandbox does not wait
	saw["left"] = isListed(ctx, client, volume.ID)
	saw["unknown"] = refused(client.Volume.Get(ctx, "nobody-has-this"))
}
