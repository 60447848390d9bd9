package plan

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/heimweg/heimweg/internal/blueprint"
	"github.com/heimweg/heimweg/internal/key"
	"github.com/heimweg/heimweg/internal/router"
	"github.com/heimweg/heimweg/internal/uci"
)

// protocol is the name under which netifd knows the WireGuard handler.
const protocol = "wireguard"

// activate decides how what is written becomes live, and puts right what is not
// live although it is written.
func (b *builder) activate() {
	moved := slices.ContainsFunc(b.plan.Steps, func(s Step) bool { return s.Do == Adjust && s.Config == "network" })
	made, left := b.tunnelSteps()
	live, known := b.liveTunnel()
	reload := moved || left || b.lanElsewhere()
	how, why := How(""), ""
	switch {
	case !slices.Contains(b.snap.Handlers, protocol):
		// A reload does not make a just-installed protocol known, on any release.
		how, why = NetworkRestart, "the router learns the WireGuard protocol only so"
		reload = false
	case made.Do == Create || known && live == nil:
		why = "brings the tunnel up"
		b.remade, reload = true, true
	case made.Do == Change:
		how, why = b.forChange(made)
	case live != nil && !live.Up:
		how, why = TunnelUp, "the tunnel is down"
	case live != nil && b.differs(*live):
		how, why = TunnelUp, "the live tunnel is not as the configuration says"
		if b.renews() && b.onlyAddresses(*live) {
			how = TunnelRenew
		}
	}
	if reload {
		s := Step{Do: Activate, How: NetworkReload, Config: "network", Why: why}
		if moved || b.lanElsewhere() {
			s.Risk, s.Why = DropsConnection, "the router's address in the home LAN changes"
		}
		b.step(s)
	}
	if how != "" {
		b.remade = true
		s := Step{Do: Activate, How: how, Config: "network", Section: b.want.Tunnel.Interface, Why: why}
		switch {
		case how == NetworkRestart && moved:
			s.Risk = DropsConnection
		case how == NetworkRestart:
			s.Risk = PausesNetwork
		case how == TunnelUp && live != nil && live.Up:
			s.Risk = DropsPeers
		}
		b.step(s)
	}
	b.activateOthers(b.remade || reload)
}

// activateOthers: the firewall resolves devices when it loads, so it follows the
// network (a zone whose only interface is down matches nothing; observed section 8.23).
func (b *builder) activateOthers(network bool) {
	wrote := b.plan.Configs()
	if network || slices.Contains(wrote, "firewall") {
		b.step(Step{Do: Activate, How: FirewallReload, Config: "firewall", Why: "the firewall takes up what is written"})
	}
	moved := len(b.plan.Moves) > 0
	if moved || slices.Contains(wrote, "dhcp") {
		why := "address and name service take up what is written"
		b.step(Step{Do: Activate, How: DnsmasqReload, Config: "dhcp", Why: why})
		b.step(Step{Do: Activate, How: OdhcpdReload, Config: "dhcp", Why: why})
	}
	if slices.Contains(wrote, "ddns") {
		b.step(Step{Do: Activate, How: DDNSRestart, Config: "ddns", Why: "the name's updater takes up what is written"})
	}
	if slices.Contains(wrote, "dropbear") {
		b.step(Step{Do: Activate, How: DropbearReload, Config: "dropbear", Why: "the login service takes up what is written"})
	}
}

// tunnelSteps gives the step that makes or changes the tunnel's section, and
// whether another tunnel of ours goes away.
func (b *builder) tunnelSteps() (made Step, left bool) {
	for _, s := range b.plan.Steps {
		if s.Config != "network" || s.Type != "interface" || !s.Writes() {
			continue
		}
		switch {
		case s.Do == Remove:
			left = true
		case s.Do != Adjust && s.Section == b.want.Tunnel.Interface:
			made = s
		}
	}
	return made, left
}

// liveTunnel is the tunnel as netifd shows it, nil when it does not have it;
// known is false when the snapshot shows no interface at all (nobody looked).
func (b *builder) liveTunnel() (live *router.Interface, known bool) {
	i, ok := b.snap.Interface(b.want.Tunnel.Interface)
	if !ok {
		return nil, len(b.snap.Interfaces) > 0
	}
	return &i, true
}

// renews: from 25.12 on the handler can take up addresses and peers without
// tearing the tunnel down; earlier ones return success and do nothing (observed section 3).
func (b *builder) renews() bool {
	return b.snap.Board.Release.Effective().AtLeast(router.Line2512)
}

// forChange picks the gentlest way for what has changed in the tunnel's section.
// A changed address list is not picked up by a reload on any release (observed section 3).
func (b *builder) forChange(s Step) (How, string) {
	addresses, renew, rest := false, false, false
	for _, option := range changedOptions(s) {
		switch option {
		case router.MarkOption:
		case "nohostroute":
			// Only a renew ever reads it again, and only 25.12 has one (facts: OpenWrt
			// section 5.4); before that the next start of the tunnel is soon enough.
			renew = true
		case "addresses":
			addresses = addresses || !sameWords(s)
		default:
			rest = true
		}
	}
	switch {
	case rest || addresses && !b.renews():
		return TunnelUp, "the tunnel takes up its new settings"
	case addresses:
		return TunnelRenew, "the tunnel takes up its new addresses"
	case renew && b.renews():
		return TunnelRenew, "the tunnel takes up its new settings"
	}
	return "", ""
}

// sameWords: the addresses are the same, written in another form (an option with
// several in it, a list), or in another order.
func sameWords(s Step) bool {
	of := func(lines []Line) []string {
		var out []string
		for _, l := range lines {
			if l.Option == "addresses" {
				out = append(out, strings.Fields(strings.Join(l.Values, " "))...)
			}
		}
		slices.Sort(out)
		return out
	}
	return slices.Equal(of(s.Old), of(s.New))
}

func changedOptions(s Step) []string {
	var out []string
	for _, l := range s.Old {
		if !slices.ContainsFunc(s.New, l.Equal) {
			out = append(out, l.Option)
		}
	}
	for _, l := range s.New {
		if l.Secret == SecretNew || !slices.ContainsFunc(s.Old, l.Equal) {
			out = append(out, l.Option)
		}
	}
	return out
}

// differs compares the live tunnel with the configuration.
func (b *builder) differs(live router.Interface) bool {
	if !sameAddresses(live.Addresses, b.want.Tunnel.Addresses) {
		return true
	}
	t := b.snap.Tunnels[live.Name]
	if t == nil {
		return b.snap.Tunnels != nil
	}
	if t.ListenPort != b.want.Tunnel.Port {
		return true
	}
	sec, ok := b.snap.Config("network").Section(live.Name)
	if !ok {
		return false
	}
	text, _ := sec.Get("private_key")
	private, err := key.ParsePrivate(text)
	return err == nil && private.Public() != t.PublicKey
}

func (b *builder) onlyAddresses(live router.Interface) bool {
	fixed := live
	fixed.Addresses = b.want.Tunnel.Addresses
	return !b.differs(fixed)
}

func sameAddresses(live, want []netip.Prefix) bool {
	n := 0
	for _, p := range live {
		if p.Addr().IsLinkLocalUnicast() {
			continue
		}
		if !slices.Contains(want, p) {
			return false
		}
		n++
	}
	return n == len(want)
}

// lanElsewhere: the configuration says one address and the live interface has
// another, as after a change that was written and never made live.
func (b *builder) lanElsewhere() bool {
	for _, l := range b.want.LANs {
		live, ok := b.snap.Interface(l.Interface)
		if !ok || !live.Up || !l.Address.IsValid() || live.Proto != "static" {
			continue
		}
		v4 := slices.DeleteFunc(slices.Clone(live.Addresses), func(p netip.Prefix) bool { return !p.Addr().Is4() })
		if len(v4) > 0 && !slices.Contains(v4, l.Address) {
			return true
		}
	}
	return false
}

// moves notes the router's old and new address when a LAN moves.
func (b *builder) moves(iface string) {
	for _, l := range b.want.LANs {
		m := Move{Interface: iface, From: l.Was.Addr(), To: l.Address.Addr()}
		if l.Interface == iface && l.Was.IsValid() && !slices.Contains(b.plan.Moves, m) {
			b.plan.Moves = append(b.plan.Moves, m)
		}
	}
}

// peers compares the live peers with those that the configuration will hold. A
// tunnel that is set up anew takes them all from there.
func (b *builder) peers() {
	if b.remade {
		return
	}
	tunnel := b.snap.Tunnels[b.want.Tunnel.Interface]
	live := map[key.Public]router.Peer{}
	if tunnel != nil {
		for _, p := range tunnel.Peers {
			live[p.PublicKey] = p
		}
	}
	fresh := map[string]bool{} // sections whose live peer was not compared or will not match
	names := map[key.Public]string{}
	for _, s := range b.plan.Steps {
		if s.peerSection() {
			fresh[s.Section] = true
			if k, ok := lineKey(s.Old); ok {
				names[k] = s.Name
			}
		}
	}
	expected := b.expected()
	b.forget(live, expected, names)
	var add []Step
	for i := range b.want.Peers {
		p := &b.want.Peers[i]
		if p.Disabled {
			continue
		}
		have, ok := live[p.Key]
		s := Step{Config: "network", Section: p.Section, Name: p.Name, Key: p.Key.String()}
		switch {
		case !ok && (tunnel != nil || fresh[p.Section]):
			s.Do, s.Why = PeerAdd, "the live tunnel does not know it yet"
			add = append(add, s)
		case ok && !b.upToDate(p, have):
			s.Do, s.Why = PeerChange, "the live tunnel has other data for it"
			b.step(s)
		}
	}
	for _, s := range add {
		b.step(s)
	}
}

func lineKey(lines []Line) (key.Public, bool) {
	for _, l := range lines {
		if l.Option == "public_key" && len(l.Values) == 1 {
			k, err := key.ParsePublic(l.Values[0])
			return k, err == nil
		}
	}
	return key.Public{}, false
}

// expected are the keys that may be live: our enabled peers, and whatever
// peers others have configured for this interface.
func (b *builder) expected() map[key.Public]bool {
	out := make(map[key.Public]bool, len(b.want.Peers))
	for i := range b.want.Peers {
		if !b.want.Peers[i].Disabled {
			out[b.want.Peers[i].Key] = true
		}
	}
	for _, t := range b.final {
		if t.owned != nil || t.Type != "wireguard_"+b.want.Tunnel.Interface {
			continue
		}
		text, _ := t.Get("public_key")
		if k, err := key.ParsePublic(text); err == nil {
			out[k] = true
		}
	}
	return out
}

// forget takes live peers out that nobody has configured: removed, disabled or
// re-keyed ones, and strangers that somebody added by hand until the next start.
func (b *builder) forget(live map[key.Public]router.Peer, expected map[key.Public]bool, names map[key.Public]string) {
	var gone []key.Public
	for k := range live {
		if !expected[k] {
			gone = append(gone, k)
		}
	}
	slices.SortFunc(gone, func(x, y key.Public) int { return strings.Compare(x.String(), y.String()) })
	for _, k := range gone {
		name := names[k]
		for i := range b.want.Peers {
			if p := &b.want.Peers[i]; p.Key == k {
				name = p.Name
			}
		}
		b.step(Step{Do: PeerRemove, Config: "network", Name: name, Key: k.String(), Why: "it is live, but may not come home"})
	}
}

// upToDate compares a live peer with the configuration as it will be.
func (b *builder) upToDate(p *blueprint.LivePeer, live router.Peer) bool {
	if !sameSet(live.AllowedIPs, p.AllowedIPs) {
		return false
	}
	if !p.Preshared {
		return live.Preshared == ""
	}
	t := b.targetOf(p.Section)
	if t == nil {
		return false
	}
	text, ok := t.Get("preshared_key")
	return ok && text != "" && router.Digest(text) == live.Preshared
}

func (b *builder) targetOf(section string) *target {
	if b.byName == nil {
		b.byName = make(map[string]*target, len(b.final))
		for i := range b.final {
			b.byName[b.final[i].Name] = &b.final[i]
		}
	}
	return b.byName[section]
}

func sameSet(a, b []netip.Prefix) bool {
	if len(a) != len(b) {
		return false
	}
	for _, p := range a {
		if !slices.Contains(b, p) {
			return false
		}
	}
	return true
}

// secretChanged reports whether the only difference to what heimweg wrote must
// be in a secret: the section says what we want and its digest is another one.
func (b *builder) secretChanged(config string, s uci.Section) bool {
	digest, written := b.last.Digests[config+"."+s.Name]
	return written && digest != s.Digest() && slices.ContainsFunc(s.Options, func(o uci.Option) bool {
		return len(o.Values) == 1 && o.Values[0].IsSecret()
	})
}
