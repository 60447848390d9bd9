package openwrt

import (
	"context"
	"fmt"
	"strings"

	"github.com/heimweg/heimweg/internal/adopt"
	"github.com/heimweg/heimweg/internal/uci"
)

// Rummage looks for what guides leave behind on a router beside its settings: key
// files, cron jobs, logins of the web page. One round trip; it changes nothing and
// no key leaves the router.
//
// Errors: those of the shell, *GarbledError.
func Rummage(ctx context.Context, sh Shell) (adopt.Found, error) {
	ps, err := run(ctx, sh, env{}, "rummage", "rummaged", nil, "rummage.sh")
	if err != nil {
		return adopt.Found{}, err
	}
	return readFound(ps), nil
}

func readFound(ps parts) adopt.Found {
	var f adopt.Found
	for _, l := range ps["keyfiles"].lines() {
		if k, ok := readKeyFile(l); ok {
			f.Files = append(f.Files, k)
		}
	}
	if c := ps["cron"]; c.exit == 0 {
		f.Cron = c.lines()
	}
	if r := ps["rpcd"]; r.exit == 0 {
		f.RPCD, _ = uci.Parse("rpcd", r.out) // one that cannot be read says nothing
	}
	return f
}

// readKeyFile reads "-rw-r--r-- SHA256 PUBLIC PATH"; "-" stands for not known.
func readKeyFile(line string) (adopt.KeyFile, bool) {
	f := strings.SplitN(line, " ", 4)
	if len(f) != 4 || len(f[0]) < 10 || !strings.HasPrefix(f[3], "/") {
		return adopt.KeyFile{}, false
	}
	mode := 0
	for i, c := range f[0][1:10] {
		if c != '-' {
			mode |= 1 << (8 - i)
		}
	}
	known := func(s string) string { return strings.TrimPrefix(s, "-") }
	return adopt.KeyFile{Path: f[3], Mode: fmt.Sprintf("%04o", mode), Digest: known(f[1]), Public: known(f[2])}, true
}
