// Command heimweg turns a spare router behind the ISP's router into a WireGuard
// gateway and brings a household's devices home. See package cli for its command
// line and docs/architecture.md for how it works.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/heimweg/heimweg/internal/cli"
)

func main() { os.Exit(run()) }

// run lives apart from main so that what is deferred runs before the exit.
func run() int {
	// The first Ctrl-C asks everything to stop and clean up; the second ends it.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)
	return cli.Run(ctx, cli.Env{}, os.Args[1:])
}
