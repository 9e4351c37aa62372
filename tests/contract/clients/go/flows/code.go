package main

import (
	"context"
	"sync"
	"time"

	"github.com/daytonaio/daytona/libs/sdk-go/pkg/daytona"
	"github.com/daytonaio/daytona/libs/sdk-go/pkg/options"
	"github.com/daytonaio/daytona/libs/sdk-go/pkg/types"
)

// interpret runs code and gives its result, beside what came while it ran.
func interpret(
	ctx context.Context, sandbox *daytona.Sandbox, code string, opts ...func(*options.RunCode),
) (result *types.ExecutionResult, heard map[string]string) {
	channels := must(sandbox.CodeInterpreter.RunCode(ctx, code, opts...))
	heard = map[string]string{"out": "", "err": "", "errors": ""}
	var mutex sync.Mutex
	var listening sync.WaitGroup
	hear := func(name string, text string) {
		mutex.Lock()
		defer mutex.Unlock()
		heard[name] += text
	}
	listening.Go(func() {
		for message := range channels.Stdout {
			hear("out", message.Text)
		}
	})
	listening.Go(func() {
		for message := range channels.Stderr {
			hear("err", message.Text)
		}
	})
	listening.Go(func() {
		for failed := range channels.Errors {
			hear("errors", failed.Name)
		}
	})
	result = <-channels.Done
	listening.Wait()
	return result, heard
}

// failed is a result's error in short.
func failed(result *types.ExecutionResult) []any {
	if result.Error == nil {
		return nil
	}
	return []any{result.Error.Name, result.Error.Value, result.Error.Traceback != nil}
}

// code: the interpreter with contexts, limits and crashes, one-shot commands, runs of code. Argument: a sandbox.
func code(ctx context.Context, client *daytona.Client, arguments []string, saw seen) {
	sandbox := must(client.Get(ctx, arguments[0]))
	result, heard := interpret(ctx, sandbox,
		"import os, sys\nx = 41\nprint('one')\nprint('two', file=sys.stderr)\nprint(os.environ['NAME'])",
		options.WithEnv(map[string]string{"NAME": "three"}))
	saw["run"] = []any{result.Stdout, result.Stderr, failed(result), heard}
	result, heard = interpret(ctx, sandbox, "print('before')\n1 / 0")
	saw["error"] = []any{result.Stdout, failed(result), heard}

	interpreter := sandbox.CodeInterpreter
	made := must(interpreter.CreateContext(ctx, pointer("/tmp")))
	saw["context"] = []any{made["cwd"], made["active"], made["language"]}
	context := options.WithCustomContext(made["id"].(string))
	result, _ = interpret(ctx, sandbox, "import os\nprint('x' in globals(), os.getcwd())\ny = 5", context)
	saw["apart"] = result.Stdout
	result, _ = interpret(ctx, sandbox, "print(y)", context)
	saw["kept"] = result.Stdout
	ids := []any{}
	for _, each := range must(interpreter.ListContexts(ctx)) {
		ids = append(ids, each["id"] == made["id"])
	}
	saw["listed"] = ids
	check(interpreter.DeleteContext(ctx, made["id"].(string)))
	result, _ = interpret(ctx, sandbox, "1", context)
	saw["inDeleted"] = failed(result)
	saw["deletedAgain"] = told(interpreter.DeleteContext(ctx, made["id"].(string)))

	began := time.Now()
	result, _ = interpret(ctx, sandbox, "print('begun', flush=True)\nimport time; time.sleep(60)",
		options.WithInterpreterTimeout(3*time.Second))
	saw["timeout"] = []any{result.Stdout, failed(result), time.Since(began).Seconds()}
	result, _ = interpret(ctx, sandbox, "print(x + 1)")
	saw["state"] = result.Stdout
	result, _ = interpret(ctx, sandbox, "import os; os._exit(3)")
	saw["died"] = failed(result)
	result, _ = interpret(ctx, sandbox, "print(x)")
	saw["anew"] = failed(result)

	process := sandbox.Process
	command := must(process.ExecuteCommand(ctx, "pwd; echo out; echo err >&2; exit 7", options.WithCwd("/usr")))
	saw["command"] = []any{command.ExitCode, command.Result}
	began = time.Now()
	saw["commandTimeout"] = []any{
		refused(process.ExecuteCommand(ctx, "echo begun; sleep 60", options.WithExecuteTimeout(10*time.Second))),
		time.Since(began).Seconds(),
	}
	command = must(process.ExecuteCommand(ctx, "echo =$VALUE=", options.WithCommandEnv(map[string]string{"VALUE": "v"})))
	saw["commandEnvironment"] = command.Result

	// 0.148 has this call but always refuses it, without asking us.
	ran, err := process.CodeRun(ctx, "import os, sys\nprint(sys.argv[1:], os.environ['A'])\nsys.exit(3)",
		options.WithCodeRunParams(types.CodeRunParams{Argv: []string{"a b", "$(x)"}, Env: map[string]string{"A": "b"}}))
	saw["codeRun"] = told(err)
	if err == nil {
		saw["codeRun"] = []any{ran.ExitCode, ran.Result, release.plots(ran)}
	}
	saw["codeRunTimeout"] = refused(process.CodeRun(ctx, "import time\nprint('begun', flush=True)\ntime.sleep(60)",
		func(run *options.CodeRun) { run.Timeout = pointer(10 * time.Second) })) // a busy machine takes long to start a Python
}

const drawing = `import matplotlib.pyplot as plt
print('before')
plt.plot([1, 2], [3, 4], label='one')
plt.title('A line')
plt.show()
print('after')`

// plot: a chart of a run of code. Argument: a sandbox that has matplotlib.
func plot(ctx context.Context, client *daytona.Client, arguments []string, saw seen) {
	saw["charts"] = lacking
	if release.plots != nil {
		ran := must(must(client.Get(ctx, arguments[0])).Process.CodeRun(ctx, drawing))
		saw["charts"] = []any{ran.ExitCode, ran.Result, release.plots(ran)}
	}
}
