package shell

import (
	"context"
	"io"
	"os"
)

// dialAgent opens the named pipe of Windows' own OpenSSH agent.
func dialAgent(_ context.Context, at string) (io.ReadWriteCloser, error) {
	return os.OpenFile(at, os.O_RDWR, 0)
}

// defaultAgent is where an agent is when SSH_AUTH_SOCK does not say.
const defaultAgent = `\\.\pipe\openssh-ssh-agent`
