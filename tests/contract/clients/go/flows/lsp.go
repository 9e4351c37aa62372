package main

import (
	"context"

	"github.com/daytonaio/daytona/libs/sdk-go/pkg/daytona"
	"github.com/daytonaio/daytona/libs/sdk-go/pkg/types"
)

// languageServer: a Python project has symbols and completions. Argument: a sandbox with `project/greeter.py`.
func languageServer(ctx context.Context, client *daytona.Client, arguments []string, saw seen) {
	sandbox := must(client.Get(ctx, arguments[0]))
	file := "project/greeter.py"
	lsp := daytona.NewLspServerService(sandbox.ToolboxClient, types.LspLanguagePython, "project", nil)
	saw["early"] = refused(lsp.DocumentSymbols(ctx, file))
	check(lsp.Start(ctx))
	saw["workspace"] = must(lsp.SandboxSymbols(ctx, "Greeter"))
	check(lsp.DidOpen(ctx, file))
	saw["document"] = must(lsp.DocumentSymbols(ctx, file))
	// The SDK sends the line as the character and the character as the line.
	saw["completions"] = must(lsp.Completions(ctx, file, types.Position{Line: 12, Character: 5}))
	saw["asDocumented"] = must(lsp.Completions(ctx, file, types.Position{Line: 5, Character: 12}))
	check(lsp.DidClose(ctx, file))
	check(lsp.Stop(ctx))
	saw["stoppedAgain"] = told(lsp.Stop(ctx))
	saw["language"] = told(daytona.NewLspServerService(sandbox.ToolboxClient, "cobol", "project", nil).Start(ctx))
}
