// All flows of the Go SDK in one program: `flows NAME ARGUMENTS...` prints what it saw as one JSON object.
//
// The same sources are built for every release; what a release spells differently or lacks is in release_*.go.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/daytonaio/daytona/libs/sdk-go/pkg/daytona"
	sdk "github.com/daytonaio/daytona/libs/sdk-go/pkg/errors"
)

// lacking is what a flow saw of a call that the release does not have.
const lacking = "the release lacks this call"

// patience bounds a whole flow.
const patience = 4 * time.Minute

// seen is what a flow prints at its end.
type seen map[string]any

var flows = map[string]func(ctx context.Context, client *daytona.Client, arguments []string, saw seen){
	"code":      code,
	"errors":    refusals,
	"faults":    faults,
	"files":     files,
	"git":       git,
	"lifecycle": lifecycle,
	"lsp":       languageServer,
	"plot":      plot,
	"sessions":  sessions,
	"snapshots": snapshots,
	"terminals": terminals,
	"volumes":   volumes,
}

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	client := must(daytona.NewClient())
	saw := seen{"release": daytona.Version}
	flows[os.Args[1]](ctx, client, os.Args[2:], saw)
	check(client.Close(ctx))
	check(json.NewEncoder(os.Stdout).Encode(saw))
}

// check ends the program, with a trace, when something failed that should not have.
func check(err error) {
	if err != nil {
		panic(err)
	}
}

// must is check for calls that give something.
func must[T any](value T, err error) T {
	check(err)
	return value
}

// told gives the class, message and status of an error as the SDK tells it.
func told(err error) [3]any {
	var notFound *sdk.DaytonaNotFoundError
	var limited *sdk.DaytonaRateLimitError
	var late *sdk.DaytonaTimeoutError
	var other *sdk.DaytonaError
	switch {
	case err == nil:
		return [3]any{"nothing failed", "", 0}
	case errors.As(err, &notFound):
		return [3]any{"DaytonaNotFoundError", notFound.Message, notFound.StatusCode}
	case errors.As(err, &limited):
		return [3]any{"DaytonaRateLimitError", limited.Message, limited.StatusCode}
	case errors.As(err, &late):
		return [3]any{"DaytonaTimeoutError", late.Message, late.StatusCode}
	case errors.As(err, &other):
		return [3]any{"DaytonaError", other.Message, other.StatusCode}
	default:
		return [3]any{fmt.Sprintf("%T", err), err.Error(), 0}
	}
}

// refused is told for calls that would also give something.
func refused[T any](_ T, err error) [3]any { return told(err) }

// pointer is for optional parameters.
func pointer[T any](value T) *T { return &value }

// run gives what a shell command printed; it must end with 0.
func run(ctx context.Context, sandbox *daytona.Sandbox, command string) string {
	done := must(sandbox.Process.ExecuteCommand(ctx, command))
	if done.ExitCode != 0 {
		panic(fmt.Sprintf("%s ended with %d: %s", command, done.ExitCode, done.Result))
	}
	return done.Result
}

// until looks again and again.
func until(ctx context.Context, holds func() bool) {
	for !holds() {
		select {
		case <-ctx.Done():
			panic(ctx.Err())
		case <-time.After(50 * time.Millisecond):
		}
	}
}
