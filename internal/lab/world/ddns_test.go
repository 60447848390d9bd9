package world

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/heimweg/heimweg/internal/home"
)

// ddnsFiles are what a household writes for ddns-scripts.
func ddnsFiles(source, password string) string {
	return fmt.Sprintf(`config service 'name'
	option enabled '1'
	option service_name '%s'
	option lookup_host '%s'
	option domain '%s'
	option password '%s'
	option use_https '1'
	option use_ipv6 '0'
%s	option check_interval '10'
	option check_unit 'minutes'
`, DDNSHost, EndpointName, EndpointName, password, source)
}

// The updater of ddns-scripts: the name follows the address that a web page tells,
// after at most ten minutes; a private address is never told, nor is one told with
// a wrong password.
func TestDDNS(t *testing.T) {
	stale := netip.MustParseAddr("203.0.113.99")
	for _, c := range []struct {
		name, source, password string
		want                   netip.Addr
	}{
		{"web", "\toption ip_source 'web'\n\toption ip_url 'http://dyn.example.net/ip'\n", DDNSPassword, Public.Addr()},
		{"private", "\toption ip_source 'network'\n\toption ip_network 'wan'\n", DDNSPassword, stale},
		{"refused", "\toption ip_source 'web'\n\toption ip_url 'http://dyn.example.net/ip'\n", "wrong", stale},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				defer cancel()
				w, err := New(ctx, Options{Uplink: home.Behind, DDNS: true})
				if err != nil {
					t.Fatal(err)
				}
				defer w.Close()
				w.Name(EndpointName, stale)
				install := "apk update && apk add ddns-scripts"
				if out, said, exit := w.Router.Sh(install); exit != 0 {
					t.Fatal(out, said)
				}
				script := fmt.Sprintf("cat >/etc/config/ddns <<'E'\n%sE\n/etc/init.d/ddns enable; /etc/init.d/ddns restart", ddnsFiles(c.source, c.password))
				if out, said, exit := w.Router.Sh(script); exit != 0 {
					t.Fatal(out, said)
				}
				time.Sleep(30 * time.Second)
				if got, _ := w.Lookup(EndpointName); got != c.want {
					t.Errorf("the name says %s, want %s; told %v, %d refused", got, c.want, w.DDNS.Updates(), w.DDNS.Refused())
				}
				// The line gets another address in the night: the next look follows it.
				if err := w.Reconnect(); err != nil {
					t.Fatal(err)
				}
				want := stale
				if c.want != stale {
					want = w.ISP.Public()
				}
				time.Sleep(10*time.Minute + 30*time.Second)
				if got, _ := w.Lookup(EndpointName); got != want {
					t.Errorf("ten minutes later the name says %s, want %s", got, want)
				}
			})
		})
	}
}
