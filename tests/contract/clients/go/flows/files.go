package main

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"sort"

	"github.com/daytonaio/daytona/libs/sdk-go/pkg/daytona"
	"github.com/daytonaio/daytona/libs/sdk-go/pkg/options"
)

// large is more than any buffer on the way.
const large = 5 << 20

// files: everything the SDK does with them. Arguments: a sandbox, an empty folder of this machine.
func files(ctx context.Context, client *daytona.Client, arguments []string, saw seen) {
	sandbox, local := must(client.Get(ctx, arguments[0])), arguments[1]
	system := sandbox.FileSystem
	root := must(sandbox.GetWorkingDir(ctx)) + "/go-files"
	saw["home"] = must(sandbox.GetUserHomeDir(ctx)) != ""

	check(system.CreateFolder(ctx, root+"/a/deep"))
	check(system.CreateFolder(ctx, root+"/private", options.WithMode("0700")))
	content := bytes.Repeat([]byte("0123456789abcdef\x00\xff"), large/18)
	check(system.UploadFile(ctx, content, root+"/bytes ü.bin"))
	saw["bytes"] = bytes.Equal(must(system.DownloadFile(ctx, root+"/bytes ü.bin", nil)), content)
	here := filepath.Join(local, "here.txt")
	check(os.WriteFile(here, []byte("alpha\nneedle one\n"), 0o600))
	check(system.UploadFile(ctx, here, root+"/a/3.txt"))
	there := filepath.Join(local, "there.txt")
	_ = must(system.DownloadFile(ctx, root+"/a/3.txt", &there))
	saw["file"] = string(must(os.ReadFile(there)))
	check(system.UploadFile(ctx, []byte{}, root+"/a/empty.txt"))
	// DownloadFile has nothing to read from where an answer is empty; that cannot be helped from our side.
	saw["empty"] = []any{must(system.GetFileInfo(ctx, root+"/a/empty.txt")).Size, refused(system.DownloadFile(ctx, root+"/a/empty.txt", nil))}
	check(system.UploadFile(ctx, []byte("one"), root+"/a/deep/1.txt"))
	check(system.UploadFile(ctx, []byte("new"), root+"/not/there/yet.txt"))

	saw["stream"], saw["streamMissing"] = lacking, lacking
	if release.downloadStream != nil {
		stream := must(release.downloadStream(ctx, system, root+"/bytes ü.bin"))
		saw["stream"] = bytes.Equal(must(io.ReadAll(stream)), content)
		check(stream.Close())
		stream = must(release.downloadStream(ctx, system, root+"/a/empty.txt"))
		saw["streamEmpty"] = len(must(io.ReadAll(stream)))
		check(stream.Close())
		saw["streamMissing"] = refused(release.downloadStream(ctx, system, root+"/nowhere"))
	}

	names := []string{}
	for _, each := range must(system.ListFiles(ctx, root)) {
		names = append(names, each.Name)
	}
	sort.Strings(names)
	saw["list"] = names
	info := must(system.GetFileInfo(ctx, root+"/a/deep/1.txt"))
	saw["info"] = []any{info.Name, info.Size, info.IsDirectory, info.Mode, !info.ModifiedTime.IsZero()}
	saw["private"] = must(system.GetFileInfo(ctx, root+"/private")).Mode
	check(system.SetFilePermissions(ctx, root+"/a/deep/1.txt", options.WithPermissionMode("0600")))
	saw["mode"] = must(system.GetFileInfo(ctx, root+"/a/deep/1.txt")).Mode

	saw["find"] = must(system.FindFiles(ctx, root, "needle"))
	saw["search"] = must(system.SearchFiles(ctx, root, "*.txt"))
	saw["replace"] = must(system.ReplaceInFiles(ctx, []string{root + "/a/3.txt", root + "/nowhere"}, "needle", "pin"))
	saw["replaced"] = string(must(system.DownloadFile(ctx, root+"/a/3.txt", nil)))
	check(system.MoveFiles(ctx, root+"/a/3.txt", root+"/moved.txt"))
	saw["moved"] = string(must(system.DownloadFile(ctx, root+"/moved.txt", nil)))

	saw["missing"] = refused(system.DownloadFile(ctx, root+"/a/3.txt", nil))
	saw["infoMissing"] = refused(system.GetFileInfo(ctx, root+"/a/3.txt"))
	saw["listMissing"] = refused(system.ListFiles(ctx, root+"/nowhere"))
	saw["uploadOnto"] = told(system.UploadFile(ctx, []byte("x"), root+"/a"))
	saw["moveOnto"] = told(system.MoveFiles(ctx, root+"/moved.txt", root+"/a/deep/1.txt"))
	saw["badMode"] = told(system.SetFilePermissions(ctx, root+"/moved.txt", options.WithPermissionMode("rwx")))
	saw["nobody"] = told(system.SetFilePermissions(ctx, root+"/moved.txt", options.WithOwner("nobody-of-that-name")))
	saw["badPattern"] = refused(system.SearchFiles(ctx, root+"/nowhere", "*.txt"))
	saw["folderAlone"] = told(system.DeleteFile(ctx, root+"/a", false))
	check(system.DeleteFile(ctx, root, true))
	saw["deletedAgain"] = told(system.DeleteFile(ctx, root, true))
}
