package plan

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/heimweg/heimweg/internal/blueprint"
	"github.com/heimweg/heimweg/internal/fault"
	"github.com/heimweg/heimweg/internal/router"
	"github.com/heimweg/heimweg/internal/uci"
)

// Room that must be free on the router's flash. WireGuard's packages need well
// under 1 MB (facts: OpenWrt section 7.6), wireguard-tools 74 kB of it; a snapshot of
// four small files needs little.
const (
	RoomForPackagesKB = 400
	RoomForConfigKB   = 64
)

// broken reports configuration files that cannot be read. Nothing can be
// compared then: the uci program refuses the whole file for one bad line (facts:
// OpenWrt section 4.1), and empty it is not.
func (b *builder) broken() bool {
	found := false
	for _, c := range router.Touched() {
		err := b.snap.Broken[c]
		if err == nil {
			continue
		}
		found = true
		f := fault.New("config-broken", "the router's /etc/config/%s cannot be read", c).From(err)
		var syntax *uci.SyntaxError
		if errors.As(err, &syntax) {
			f.At(fault.Place{File: "/etc/config/" + c, Line: syntax.Line})
			f.Saw("%s at line %d, byte %d", syntax.Msg, syntax.Line, syntax.Byte)
		}
		b.block(f.Do("correct that line on the router, or restore a backup; until then the router ignores the whole file"))
	}
	return found
}

// obstacles are the reasons not to touch the router right now.
func (b *builder) obstacles() {
	s := b.snap
	if s.Pending != nil {
		f := fault.New("run-unfinished", "an earlier run of heimweg was neither confirmed nor taken back").
			Saw("run %s, begun %s by the router's clock", s.Pending.ID, s.Pending.Since.UTC().Format("2006-01-02 15:04:05"))
		if s.Pending.Armed {
			f.Do("wait: the router takes its old settings back by itself, at most %s after that; or heimweg apply, which waits for it", s.Pending.Deadline)
		} else {
			f.Do("heimweg apply: it takes the old settings back before it goes on; so does the router when it is switched off and on")
		}
		b.block(f)
	}
	if s.Locked != "" {
		b.block(fault.New("router-locked", "another heimweg is at work on this router").
			Saw("run %s", s.Locked).
			Do("wait until it is done, then run the same command again"))
	}
	if len(s.Staged) > 0 {
		b.block(fault.New("staged-changes", "somebody has unsaved changes on the router: %s", strings.Join(s.Staged, ", ")).
			Because("they would be saved together with ours").
			Do("on the router: `uci changes` shows them, `uci commit` keeps them, `uci revert %s` drops them", s.Staged[0]))
	}
	if s.LuciApply {
		b.block(fault.New("luci-apply", "the router's web page is in the middle of Save & Apply").
			Do("wait for it to finish (90 s at most), then run the same command again"))
	}
	if len(s.Overrides) > 0 {
		b.block(fault.New("override-files", "the router reads other files in place of its configuration").
			Saw("%s", strings.Join(s.Overrides, ", ")).
			Because("what is written to /etc/config would have no effect").
			Do("remove them, or restart the router, which does").Do("then run the same command again"))
	}
	b.room()
	b.readOnly()
	b.foreignPeers()
	if s.Has(blueprint.Harmful) {
		b.block(fault.New("harmful-package", "the package %s is on the router", blueprint.Harmful).
			Because("every ten minutes it deletes tunnels like this one, and it opens a login with a published password").
			Do("remove it on the router: %s", map[bool]string{true: "apk del ", false: "opkg remove "}[s.Board.Apk]+blueprint.Harmful))
	}
}

func (b *builder) room() {
	if b.plan.Empty() {
		return
	}
	space := b.snap.Space
	if space.Temporary {
		b.block(fault.New("overlay-temporary", "the router is still preparing its flash; what is written now is lost at the next power cut").
			Do("wait until it is done (a few minutes after the first start), then run the same command again"))
		return
	}
	need := int64(RoomForConfigKB)
	if len(b.plan.Packages()) > 0 {
		need = RoomForPackagesKB
	}
	if space.OverlayKB < need {
		b.block(fault.New("no-space", "there is not enough room on the router's flash").
			Saw("%d kB free, %d kB needed", space.OverlayKB, need).
			Do("remove packages or files on the router that nobody needs"))
	}
}

// readOnly: files with constructs that cannot be edited without changing what
// others wrote (see package uci).
func (b *builder) readOnly() {
	for _, c := range b.plan.Configs() {
		err := b.snap.Config(c).Editable()
		if err == nil {
			continue
		}
		f := fault.New("config-uneditable", "the router's /etc/config/%s cannot be edited without touching what is not ours", c).From(err)
		var ro *uci.ReadOnlyError
		if errors.As(err, &ro) {
			if ro.Line > 0 {
				f.At(fault.Place{File: "/etc/config/" + c, Line: ro.Line})
			}
			f.Saw("%s", ro.Why)
		}
		b.block(f.Do("on the router: `uci commit` after any change to it through LuCI writes the file in its plain form"))
	}
}

// foreignPeers: the last peer configured with an address wins silently (facts:
// OpenWrt section 5.4), so no other section may claim a key or an address of ours.
func (b *builder) foreignPeers() {
	typ := "wireguard_" + b.want.Tunnel.Interface
	var addresses, keys map[string]string // → peer
	for _, t := range b.final {
		if t.owned != nil || t.Type != typ {
			continue
		}
		if addresses == nil {
			addresses, keys = b.claims()
		}
		for _, word := range strings.Fields(strings.Join(t.Values("allowed_ips"), " ")) {
			if name, taken := addresses[single(word)]; taken {
				b.block(fault.New("peer-address-taken", "the address %s of %s also belongs to a peer that heimweg did not write", word, name).
					Saw("network.%s", t.Name).
					Do("give %s another address in home.toml, or remove that section on the router", name))
			}
		}
		k, _ := t.Get("public_key")
		if name, taken := keys[k]; taken {
			b.block(fault.New("peer-key-taken", "the key of %s also stands in a section that heimweg did not write", name).
				Saw("network.%s", t.Name).
				Do("remove that section on the router: uci delete network.%s", t.Name))
		}
	}
}

// claims gives what our peers have for themselves.
func (b *builder) claims() (addresses, keys map[string]string) {
	addresses, keys = map[string]string{}, map[string]string{}
	for i := range b.want.Peers {
		p := &b.want.Peers[i]
		keys[p.Key.String()] = p.Name
		for _, a := range p.AllowedIPs {
			addresses[a.String()] = p.Name
		}
	}
	return addresses, keys
}

// single is an allowed-ips text in the form of one address with its mask. A
// wider network is no conflict: WireGuard takes the most specific.
func single(text string) string {
	if a, err := netip.ParseAddr(text); err == nil {
		return netip.PrefixFrom(a, a.BitLen()).String()
	}
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return text
	}
	return p.Masked().String()
}

// named lists options of others that name an address in a network: reservations,
// port forwards. They stay as they are when the network moves away.
func (b *builder) named(old netip.Prefix, except string) []string {
	var out []string
	for _, c := range router.Touched() {
		for _, s := range b.snap.Config(c).Sections() {
			if router.Ours(c, s, b.last) || c == "network" && s.Name == except {
				continue
			}
			for _, o := range s.Options {
				if slices.ContainsFunc(o.Values, func(v uci.Value) bool { return inside(v, old) }) {
					out = append(out, c+"."+s.Name+"."+o.Name)
				}
			}
		}
	}
	return out
}

func inside(v uci.Value, old netip.Prefix) bool {
	if v.IsSecret() {
		return false
	}
	return slices.ContainsFunc(strings.FieldsFunc(v.String(), func(r rune) bool { return strings.ContainsRune(" ,/!", r) }), func(w string) bool {
		a, err := netip.ParseAddr(w)
		return err == nil && old.Contains(a)
	})
}

// remarks says what does not block.
func (b *builder) remarks() {
	for _, w := range b.snap.Firewall {
		b.note("firewall-skips", "the firewall skips a section: "+strings.TrimSpace(strings.TrimPrefix(w, "[!]")), "")
	}
	if b.last.Format == 0 && len(b.plan.Configs()) > 0 {
		var with []string
		for _, c := range b.plan.Configs() {
			if hasComment(b.snap.Config(c).Text()) {
				with = append(with, "/etc/config/"+c)
			}
		}
		if len(with) > 0 {
			b.note("comments", "there are comments in "+strings.Join(with, " and ")+"; heimweg keeps them, but the router's own programs drop them at their next change", "")
		}
	}
	for _, m := range b.plan.Moves {
		b.note("moves", fmt.Sprintf("the router moves from %s to %s; this computer gets a new address too", m.From, m.To), "")
		for _, l := range b.want.LANs {
			if l.Interface != m.Interface {
				continue
			}
			if names := b.named(l.Was.Masked(), l.Interface); len(names) > 0 {
				b.note("names-old-network", "these settings of yours name addresses in "+l.Was.Masked().String()+" and stay as they are: "+strings.Join(names, ", "), "change them on the router when the move is done")
			}
		}
	}
}

func hasComment(text []byte) bool {
	return slices.ContainsFunc(bytes.Split(text, []byte("\n")), func(l []byte) bool {
		return bytes.HasPrefix(bytes.TrimSpace(l), []byte("#"))
	})
}
