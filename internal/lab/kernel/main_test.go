//go:build linux

package kernel_test

import (
	"flag"
	"os"
	"sync"
	"testing"

	"github.com/heimweg/heimweg/internal/check/need"
	"github.com/heimweg/heimweg/internal/lab/kernel"
)

func TestMain(m *testing.M) {
	flag.Parse()
	if code, again := kernel.Enter(os.Stdin, os.Stdout, os.Stderr); again {
		os.Exit(code)
	}
	os.Exit(m.Run())
}

var missing = sync.OnceValue(kernel.Probe)

// needs ends a test whose abilities the machine does not have, by name.
func needs(t testing.TB, list ...kernel.Ability) {
	t.Helper()
	need.Program(t, "nft")
	for _, a := range list {
		if err := missing()[a]; err != nil {
			need.Missing(t, string(a), err.Error())
		}
	}
}

var everything = []kernel.Ability{kernel.NetworkNamespaces, kernel.Veth, kernel.Switches, kernel.NFT, kernel.Tun, kernel.RawSockets}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
