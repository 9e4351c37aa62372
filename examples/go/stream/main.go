// Watch a build while it runs: each line goes to the stream it was written to, as soon as it is there.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"sync"

	"github.com/daytonaio/daytona/libs/sdk-go/pkg/daytona"
)

const build = `(
for part in parser planner runtime; do
  echo "compiling $part"
  sleep 1
  echo "warning: $part has no tests" >&2
done
exit 3
)`

func main() {
	if err := run(context.Background()); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context) error {
	client, err := daytona.NewClient()
	if err != nil {
		return err
	}
	sandbox, err := client.Create(ctx, nil)
	if err != nil {
		return err
	}
	defer sandbox.Delete(ctx)

	if err := sandbox.Process.CreateSession(ctx, "build"); err != nil {
		return err
	}
	started, err := sandbox.Process.ExecuteSessionCommand(ctx, "build", build, true, false)
	if err != nil {
		return err
	}
	command := started["id"].(string)

	stdout, stderr := make(chan string, 64), make(chan string, 64)
	var printing sync.WaitGroup
	for file, chunks := range map[*os.File]chan string{os.Stdout: stdout, os.Stderr: stderr} {
		printing.Add(1)
		go func() {
			defer printing.Done()
			for chunk := range chunks {
				fmt.Fprint(file, chunk)
			}
		}()
	}
	// It closes both channels when the command has ended.
	if err := sandbox.Process.GetSessionCommandLogsStream(ctx, "build", command, stdout, stderr); err != nil {
		return err
	}
	printing.Wait()

	finished, err := sandbox.Process.GetSessionCommand(ctx, "build", command)
	if err != nil {
		return err
	}
	fmt.Printf("the build ended with %v\n", finished["exitCode"])
	return nil
}
