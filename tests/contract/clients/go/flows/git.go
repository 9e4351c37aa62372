package main

import (
	"context"
	"sort"
	"strings"

	"github.com/daytonaio/daytona/libs/sdk-go/pkg/daytona"
	"github.com/daytonaio/daytona/libs/sdk-go/pkg/options"
)

func status(ctx context.Context, git *daytona.GitService, path string) []any {
	told := must(git.Status(ctx, path))
	changed := []any{}
	for _, file := range told.FileStatus {
		changed = append(changed, []string{file.Path, file.Status})
	}
	return []any{told.CurrentBranch, told.Ahead, told.Behind, told.BranchPublished, changed}
}

func branches(ctx context.Context, git *daytona.GitService, path string) []string {
	names := must(git.Branches(ctx, path))
	sort.Strings(names)
	return names
}

// git: clone, change, commit, push and pull with a password. Arguments: a sandbox, a repository's URL, an empty place.
func git(ctx context.Context, client *daytona.Client, arguments []string, saw seen) {
	sandbox := must(client.Get(ctx, arguments[0]))
	url, place, git := arguments[1], arguments[2], sandbox.Git
	path, other := place+"/go-one", place+"/go-two"
	saw["noPassword"] = told(git.Clone(ctx, url, path))
	saw["wrongPassword"] = told(git.Clone(ctx, url, path, options.WithUsername("someone"), options.WithPassword("hush-hush-9")))
	for _, target := range []string{path, other} {
		check(git.Clone(ctx, url, target, options.WithUsername("someone"), options.WithPassword("secret"), options.WithBranch("main")))
	}
	saw["cloned"] = status(ctx, git, path)
	run(ctx, sandbox, "echo new > '"+path+"/new file.txt'; echo more >> "+path+"/1.txt")
	saw["changed"] = status(ctx, git, path)
	check(git.Add(ctx, path, []string{"."}))
	saw["added"] = status(ctx, git, path)
	saw["sha"] = len(must(git.Commit(ctx, path, "second", "Go", "go@example.com")).SHA)
	saw["nothingToCommit"] = refused(git.Commit(ctx, path, "none", "Go", "go@example.com"))
	saw["committed"] = status(ctx, git, path)
	saw["log"] = strings.TrimSpace(run(ctx, sandbox, "git -C "+path+" log -1 --format='%an %ae %s'"))
	saw["pushWithout"] = told(git.Push(ctx, path))
	check(git.Push(ctx, path, options.WithPushUsername("someone"), options.WithPushPassword("secret")))
	saw["pushed"] = status(ctx, git, path)
	check(git.Pull(ctx, other, options.WithPullUsername("someone"), options.WithPullPassword("secret")))
	saw["pulled"] = run(ctx, sandbox, "cat '"+other+"/new file.txt'")

	check(git.CreateBranch(ctx, path, "side"))
	saw["branchExists"] = told(git.CreateBranch(ctx, path, "side"))
	check(git.Checkout(ctx, path, "side"))
	saw["side"] = status(ctx, git, path)[0]
	_ = must(git.Commit(ctx, path, "empty", "Go", "go@example.com", options.WithAllowEmpty(true)))
	check(git.Checkout(ctx, path, "main"))
	saw["branches"] = branches(ctx, git, path)
	check(git.DeleteBranch(ctx, path, "side", options.WithForce(true)))
	saw["left"] = branches(ctx, git, path)
	saw["noBranch"] = told(git.Checkout(ctx, path, "nowhere"))
	saw["noRepository"] = refused(git.Status(ctx, place+"/nowhere"))
	check(git.Clone(ctx, url, place+"/go-three", options.WithUsername("someone"), options.WithPassword("secret"),
		options.WithCommitId(strings.TrimSpace(run(ctx, sandbox, "git -C "+path+" rev-parse HEAD~1")))))
	saw["atCommit"] = run(ctx, sandbox, "ls "+place+"/go-three")
}
