package apply_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/heimweg/heimweg/internal/apply"
	"github.com/heimweg/heimweg/internal/key"
	"github.com/heimweg/heimweg/internal/openwrt"
	"github.com/heimweg/heimweg/internal/router"
	"github.com/heimweg/heimweg/internal/uci"
)

// No value that carries a secret to the router shows it, however it is printed,
// also from deep inside of somebody else's struct.
func TestNothingShowsASecret(t *testing.T) {
	k := psk(7)
	text := "config interface 'wg0'\n\toption private_key '" + k.Reveal() + "'\n"
	d, err := uci.Parse("network", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	file := openwrt.File{Config: "network", Text: uci.Hidden(text)}
	change := openwrt.PeerChange{Preshared: k}
	values := []any{
		file, &file, openwrt.Access{PasswordHash: uci.Hidden(k.Reveal())},
		openwrt.Change{Files: []openwrt.File{file}, Peers: []openwrt.PeerChange{change}},
		openwrt.Order{Network: &file, Peers: []openwrt.PeerChange{change}},
		openwrt.Probe{Preshared: k},
		apply.Request{PasswordHash: uci.Hidden(k.Reveal()), Preshared: map[string]key.Preshared{"x": k}},
		&router.Snapshot{Configs: map[string]*uci.Document{"network": d}},
		d.Sections(),
	}
	raw := k.Bytes()
	needles := []string{k.Reveal(), fmt.Sprintf("%x", raw), fmt.Sprintf("%X", raw), fmt.Sprint(raw)[1:40], string(raw[:])}
	check := func(how, got string) {
		t.Helper()
		for _, n := range needles {
			if strings.Contains(got, n) {
				t.Errorf("%s shows a secret: %.80s", how, got)
			}
		}
	}
	for _, v := range values {
		inside := struct{ v any }{v}
		for _, verb := range strings.Split("v +v #v s q x X d o b c U t e g p T", " ") {
			for _, x := range []any{v, inside, []any{v}, &inside} {
				check(fmt.Sprintf("%%%s of %T", verb, v), fmt.Sprintf("%"+verb, x))
			}
		}
		if b, err := json.Marshal(v); err == nil {
			check(fmt.Sprintf("JSON of %T", v), string(b))
		}
		var log bytes.Buffer
		slog.New(slog.NewTextHandler(&log, nil)).Info("x", "v", v)
		slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "v", v)
		check(fmt.Sprintf("slog of %T", v), log.String())
	}
}
