// Take a finished command's output, then look twice at the log of one that goes on.
package main

import (
	"context"
	"fmt"
	"log"
	"strings"
	"time"

	"github.com/daytonaio/daytona/libs/sdk-go/pkg/daytona"
)

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

	if err := sandbox.Process.CreateSession(ctx, "check"); err != nil {
		return err
	}
	done, err := sandbox.Process.ExecuteSessionCommand(ctx, "check", "uname -s; ls /no-such-place", false, false)
	if err != nil {
		return err
	}
	fmt.Printf("exit code %v\nsaid: %vcomplained: %v", done["exitCode"], done["stdout"], done["stderr"])

	clock, err := sandbox.Process.ExecuteSessionCommand(ctx, "check", "while sleep 0.5; do date +tick-%s; done", true, false)
	if err != nil {
		return err
	}
	for range 2 {
		time.Sleep(2 * time.Second)
		logs, err := sandbox.Process.GetSessionCommandLogs(ctx, "check", clock["id"].(string))
		if err != nil {
			return err
		}
		fmt.Printf("%d ticks so far\n", strings.Count(logs.GetOutput(), "tick-"))
	}
	return nil
}
