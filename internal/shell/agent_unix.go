//go:build !windows

package shell

import (
	"context"
	"io"
	"net"
)

// dialAgent opens the socket of an SSH agent.
func dialAgent(ctx context.Context, at string) (io.ReadWriteCloser, error) {
	return new(net.Dialer).DialContext(ctx, "unix", at)
}

// defaultAgent is where an agent is when SSH_AUTH_SOCK does not say.
const defaultAgent = ""
