package adopt

import (
	"fmt"
	"slices"
	"strings"

	"github.com/heimweg/heimweg/internal/blueprint"
	"github.com/heimweg/heimweg/internal/fault"
	"github.com/heimweg/heimweg/internal/home"
	"github.com/heimweg/heimweg/internal/key"
	"github.com/heimweg/heimweg/internal/router"
	"github.com/heimweg/heimweg/internal/uci"
)

// Found is what lies about on a router beside its settings.
type Found struct {
	Files []KeyFile
	// Cron are the lines of root's crontab.
	Cron []string
	// RPCD is /etc/config/rpcd, the logins of the web page; nil when there is none.
	RPCD *uci.Document
	// Names are those of devices whose own files somebody named, and come first.
	Names map[key.Public]string
}

// A KeyFile is a file that holds a WireGuard key, as the router tells: never the
// key itself.
type KeyFile struct {
	Path string
	Mode string // octal
	// Digest of the text, as router.Digest makes it; "" for a configuration file with
	// a private key in it.
	Digest string
	// Public is the public key that belongs to it if it is a private one; as text, ""
	// where the router could not compute it.
	Public string
}

// Packages that guides install, whose presence a look should find out.
func Packages() []string {
	return []string{blueprint.Tools, blueprint.Harmful, "luci-app-wireguard", "luci-proto-wireguard", "qrencode"}
}

// around judges what is no part of the settings of network and firewall.
func (x *hand) around(f Found, h home.Home) []Part {
	var out []Part
	add := func(code string, v Verdict, what, place, then, why string) {
		p := Part{Code: code, Verdict: v, What: what, Why: why, Then: then}
		if place != "" {
			p.Place = &fault.Place{File: place}
		}
		out = append(out, p)
	}
	x.installer(f, add)
	for _, k := range f.Files {
		x.keyFile(k, h, add)
	}
	for name, why := range map[string]string{
		"luci-app-wireguard": "it shows the state of tunnels in LuCI; no tunnel needs it",
		"qrencode":           "heimweg draws QR codes itself",
	} {
		if x.snap.Has(name) {
			add("package", Redundant, "package "+name, "", "stays; heimweg removes no package", why)
		}
	}
	slices.SortStableFunc(out, func(a, b Part) int { return strings.Compare(a.Code, b.Code) })
	return out
}

// installer: the package, its login and its cron job outlive each other (facts:
// OpenWrt section 7.2), so each is looked for by itself.
func (x *hand) installer(f Found, add func(code string, v Verdict, what, place, then, why string)) {
	remove := map[bool]string{true: "apk del ", false: "opkg remove "}[x.snap.Board.Apk] + blueprint.Harmful
	if x.snap.Has(blueprint.Harmful) {
		why := "it makes a login with a published password, and every ten minutes deletes tunnels whose name contains wg"
		if !strings.Contains(x.name, "wg") {
			why += fmt.Sprintf("; %s escapes by its capital letters only", x.name)
		}
		add("wg-installer", Harmful, "package "+blueprint.Harmful, "", "remove it on the router: "+remove, why)
	}
	if f.RPCD != nil {
		for i, sec := range f.RPCD.OfType("login") {
			if first(sec, "username") == "wginstaller" {
				ref := sec.Name
				if sec.Anonymous {
					ref = fmt.Sprintf("@login[%d]", i)
				}
				add("wg-installer-login", Harmful, "login wginstaller", "/etc/config/rpcd",
					"remove it on the router: uci delete rpcd."+ref+"; uci commit rpcd; /etc/init.d/rpcd restart",
					"its password is published, and whoever reaches the web page's ubus can make tunnels that let everything in")
			}
		}
	}
	for _, l := range f.Cron {
		if strings.Contains(l, "wginstaller") || strings.Contains(l, "wg-installer") || strings.Contains(l, "wg_installer") {
			add("wg-installer-cron", Harmful, "cron job of "+blueprint.Harmful, "/etc/crontabs/root",
				"remove it on the router: sed -i /wginstaller/d /etc/crontabs/root; /etc/init.d/cron restart",
				"every ten minutes it deletes interfaces whose name contains wg and on which nobody answers")
			return
		}
	}
}

// keyFile names what a file holds, by comparing digests and public keys.
func (x *hand) keyFile(k KeyFile, h home.Home, add func(code string, v Verdict, what, place, then, why string)) {
	live := x.snap.Tunnels[x.name]
	then := "remove it on the router when you have looked that nothing else needs it: rm " + k.Path
	mode := ""
	if len(k.Mode) == 4 && k.Mode[3] != '0' {
		mode = ", readable for everybody on the router"
	}
	private, _ := x.section.Get("private_key")
	switch {
	case k.Digest == "":
		add("key-file", Unsafe, "private key in a configuration file", k.Path, then, "a copy of a private key lies on the router's flash"+mode)
	case k.Digest == router.Digest(private):
		add("key-file", Unsafe, "the tunnel's private key", k.Path, then, "a second copy of it lies on the router's flash"+mode+"; the tunnel needs only the one in /etc/config/network")
	case live != nil && k.Digest == router.Digest(live.PublicKey.String()):
		add("public-key-file", Redundant, "the tunnel's public key", k.Path, "stays; it is no secret", "the router computes it whenever somebody asks")
	default:
		for _, p := range h.Peers {
			if k.Digest == router.Digest(p.PublicKey.String()) {
				add("public-key-file", Redundant, "the public key of "+p.Name, k.Path, "stays; it is no secret", "it stands in the device's section")
				return
			}
			if k.Public == p.PublicKey.String() {
				add("key-file", Unsafe, "the private key of "+p.Name, k.Path, then, "whoever reads it can come home as "+p.Name+mode+"; it belongs on the device only")
				return
			}
		}
		add("key-file", Unsafe, "a key of unknown use", k.Path, then, "it looks like a private or preshared key"+mode)
	}
}
