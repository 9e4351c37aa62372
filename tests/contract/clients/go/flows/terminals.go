package main

import (
	"context"
	"strings"
	"sync"

	"github.com/daytonaio/daytona/libs/sdk-go/pkg/daytona"
	"github.com/daytonaio/daytona/libs/sdk-go/pkg/options"
	"github.com/daytonaio/daytona/libs/sdk-go/pkg/types"
)

// screen keeps what a terminal shows while somebody looks at it.
type screen struct {
	mutex sync.Mutex
	text  strings.Builder
	ended chan struct{}
}

func watch(handle *daytona.PtyHandle) *screen {
	made := &screen{ended: make(chan struct{})}
	go func() {
		defer close(made.ended)
		for data := range handle.DataChan() {
			made.mutex.Lock()
			made.text.Write(data)
			made.mutex.Unlock()
		}
	}()
	return made
}

func (s *screen) String() string {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return s.text.String()
}

func (s *screen) shows(text string) func() bool {
	return func() bool { return strings.Contains(s.String(), text) }
}

// ended is how a terminal's end is told: exit code and reason.
func ended(ctx context.Context, handle *daytona.PtyHandle) [2]any {
	result := must(handle.Wait(ctx))
	return [2]any{result.ExitCode, result.Error}
}

func identifiers(ctx context.Context, process *daytona.ProcessService) []string {
	ids := []string{}
	for _, session := range must(process.ListPtySessions(ctx)) {
		ids = append(ids, session.ID)
	}
	return ids
}

// terminals: create, type, resize, several clients on one, a late one, kill. Argument: a sandbox of this flow's own.
func terminals(ctx context.Context, client *daytona.Client, arguments []string, saw seen) {
	process := must(client.Get(ctx, arguments[0])).Process
	handle := must(process.CreatePty(ctx, "go",
		options.WithCreatePtySize(types.PtySize{Cols: 100, Rows: 30}),
		options.WithCreatePtyEnv(map[string]string{"GREETING": "hi there"}),
	))
	shown := watch(handle)
	check(handle.WaitForConnection(ctx))
	saw["connected"] = []any{handle.IsConnected(), handle.SessionID()}
	saw["listed"] = identifiers(ctx, process)
	info := must(process.GetPtySessionInfo(ctx, "go"))
	saw["info"] = []any{info.ID, info.Cols, info.Rows}
	saw["duplicate"] = refused(process.CreatePtySession(ctx, "go"))
	check(handle.SendInput([]byte("PS1=; stty -echo; stty size; echo $GREETING\n")))
	until(ctx, shown.shows("hi there\r\n"))
	size := must(handle.Resize(ctx, 120, 40))
	saw["resized"] = []int{size.Cols, size.Rows}
	_ = must(handle.Write([]byte("stty size; exit 3\n")))
	saw["exit"] = ended(ctx, handle)
	<-shown.ended
	saw["shown"] = shown.String()
	saw["after"] = identifiers(ctx, process)
	saw["typedTooLate"] = told(handle.SendInput([]byte("x")))

	saw["session"] = must(process.CreatePtySession(ctx, "shared", options.WithPtySize(types.PtySize{Cols: 80, Rows: 24}))).ID
	one := must(process.ConnectPty(ctx, "shared"))
	two := must(process.ConnectPty(ctx, "shared"))
	first, second := watch(one), watch(two)
	check(one.WaitForConnection(ctx))
	check(two.WaitForConnection(ctx))
	check(one.SendInput([]byte("echo both''-see\n")))
	until(ctx, first.shows("both-see"))
	until(ctx, second.shows("both-see"))
	check(two.Disconnect())
	late := must(process.ConnectPty(ctx, "shared"))
	third := watch(late)
	until(ctx, third.shows("both-see"))
	check(late.WaitForConnection(ctx))
	check(one.Kill(ctx))
	saw["killed"] = [2]any{ended(ctx, one), ended(ctx, late)}

	saw["killedAgain"] = told(process.KillPtySession(ctx, "shared"))
	saw["resizedAgain"] = refused(process.ResizePtySession(ctx, "shared", types.PtySize{Cols: 10, Rows: 10}))
	saw["unknown"] = refused(process.ConnectPty(ctx, "nobody"))
}
