package ipstack

import (
	"errors"
	"net"
	"os"
	"strings"
	"syscall"
)

// gVisor says in words of its own what the system's connections say with errors
// that can be compared (gVisor, pkg/tcpip/errors.go).
var words = map[string]error{
	"connection was refused":   os.NewSyscallError("connect", syscall.ECONNREFUSED),
	"connection reset by peer": os.NewSyscallError("read", syscall.ECONNRESET),
	"connection aborted":       os.NewSyscallError("read", syscall.ECONNABORTED),
	"operation timed out":      os.NewSyscallError("connect", syscall.ETIMEDOUT),
	"no route to host":         os.NewSyscallError("connect", syscall.EHOSTUNREACH),
	"network is unreachable":   os.NewSyscallError("connect", syscall.ENETUNREACH),
	"i/o timeout":              os.ErrDeadlineExceeded,
}

// standard puts them into the system's errors. What is neither stays.
func standard(err error) error {
	var op *net.OpError
	if !errors.As(err, &op) {
		return err
	}
	for w, is := range words {
		if strings.Contains(op.Err.Error(), w) {
			same := *op
			same.Err = is
			return &same
		}
	}
	return err
}
