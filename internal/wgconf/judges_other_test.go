//go:build !linux

package wgconf_test

import (
	"testing"

	"github.com/heimweg/heimweg/internal/check/need"
)

type device struct{ name string }

func (*device) last() []string { return nil }

func newDevice(t *testing.T) *device {
	need.Missing(t, "Linux", "wg talks to a device in another way here")
	return nil
}
