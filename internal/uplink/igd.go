package uplink

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/heimweg/heimweg/internal/subnet"
)

// Service types (UPnP IGD 1 and 2; TR-064).
const (
	wanIP2    = "urn:schemas-upnp-org:service:WANIPConnection:2"
	wanIP1    = "urn:schemas-upnp-org:service:WANIPConnection:1"
	wanPPP1   = "urn:schemas-upnp-org:service:WANPPPConnection:1"
	firewall6 = "urn:schemas-upnp-org:service:WANIPv6FirewallControl:1"
	avmIP     = "urn:dslforum-org:service:WANIPConnection:1"
	avmPPP    = "urn:dslforum-org:service:WANPPPConnection:1"
	avmRoutes = "urn:dslforum-org:service:Layer3Forwarding:1"
	avmName   = "urn:dslforum-org:service:X_AVM-DE_MyFritz:1"
	avmUsers  = "urn:dslforum-org:service:LANConfigSecurity:1"
)

// Faults of UPnP that are treated specially (WANIPConnection:2 2.5, WANIPv6FirewallControl:1).
const (
	noSuchIndex   = 713
	noSuchEntry   = 714
	conflict      = 718
	onlyPermanent = 725
	otherwiseUsed = 729
)

// fixedPlaces are where descriptions are without a search: a FRITZ!Box's two (deps
// 8; fritzconnection), miniupnpd's on OpenWrt.
var fixedPlaces = []place{{49000, "/igd2desc.xml"}, {49000, "/igddesc.xml"}, {5000, "/rootDesc.xml"}}

// tr064Place is AVM's description (AVM TR-064 First Steps 3.1).
var tr064Place = place{49000, "/tr64desc.xml"}

// box is a service that maps ports: UPnP's, or TR-064's.
type box struct {
	protocol Protocol
	dev      device
	wan      service
	way      string // by which it answered
	remote   string // how "everybody" is written
	login    *Login
	guard    *guard // nil without login
}

// guard remembers that a password was wrong: a FRITZ!Box locks everybody out for
// longer and longer when somebody goes on trying.
type guard struct {
	mu    sync.Mutex
	wrong error
	user  string // who logs in when Login names nobody; "" before it was asked
}

// call does one action of a service.
func (g *Gateway) call(ctx context.Context, w way, addr netip.Addr, b *box, s service, action string, args ...arg) (map[string]string, error) {
	ctx, cancel := context.WithTimeout(ctx, g.opt.later())
	defer cancel()
	r, err := g.post(ctx, w, addr, b, s, action, envelope(s.kind, action, args))
	if err != nil {
		return nil, err
	}
	if r.status == http.StatusForbidden {
		return nil, &RefusedError{Reply: action + ": HTTP 403", Code: 403, Why: SwitchedOff}
	}
	a, err := parseAnswer(action, r.body)
	switch {
	case err != nil && r.status != http.StatusOK:
		return nil, &RefusedError{Reply: fmt.Sprintf("%s: HTTP %d", action, r.status), Code: r.status, Why: OtherReason}
	case err != nil:
		return nil, err
	case a.fault:
		return nil, fault(action, a, b, w)
	}
	return a.args, nil
}

// post sends the request, with the password when it is asked for.
func (g *Gateway) post(ctx context.Context, w way, addr netip.Addr, b *box, s service, action, body string) (reply, error) {
	header := http.Header{"Content-Type": {`text/xml; charset="utf-8"`}, "SOAPAction": {`"` + s.kind + "#" + action + `"`}}
	if b.guard != nil {
		b.guard.mu.Lock() // one after the other, so that a wrong password is sent once
		defer b.guard.mu.Unlock()
		if b.guard.wrong != nil {
			return reply{}, b.guard.wrong
		}
	}
	r, err := send(ctx, w.Dial, addr, s.control, "POST", header.Clone(), body)
	if err != nil || r.status != http.StatusUnauthorized {
		return r, err
	}
	if b.login == nil {
		return reply{}, &RefusedError{Reply: action + ": HTTP 401", Code: 401, Why: NeedsPassword}
	}
	c, ok := parseChallenge(r.header)
	if !ok {
		return reply{}, &GarbledError{Reply: action, What: "it wants a password in a form that is not known here"}
	}
	header.Set("Authorization", c.response(g.loginOf(ctx, w, addr, b), "POST", s.control.path))
	r, err = send(ctx, w.Dial, addr, s.control, "POST", header, body)
	if err == nil && r.status == http.StatusUnauthorized {
		b.guard.wrong = &RefusedError{Reply: action + ": HTTP 401", Code: 401, Why: WrongPassword}
		return reply{}, b.guard.wrong
	}
	return r, err
}

// fault turns a UPnP error into a refusal.
func fault(action string, a answer, b *box, w way) error {
	e := &RefusedError{Reply: strings.TrimSpace(fmt.Sprintf("%s: %d %s", action, a.code, a.words)), Code: a.code, Why: OtherReason}
	if y, ok := map[int]Why{401: Unsupported, 402: BadArgument, 403: SwitchedOff, 600: BadArgument, 601: BadArgument, 602: Unsupported,
		606: NotAuthorized, 702: SwitchedOff, 703: SwitchedOff, 713: NotThere, 714: NotThere, 718: Taken, 725: OnlyPermanent,
		728: Full, 729: Taken, 732: BadArgument, 724: BadArgument}[a.code]; ok {
		e.Why = y
	}
	if action == "AddPinhole" && a.code == 701 {
		e.Why = Full
	}
	if b.protocol == TR064 {
		if y, ok := map[int]Why{606: NotPermitted, 866: NeedsSecond, 867: Busy, 868: Busy}[a.code]; ok {
			e.Why = y
		}
	}
	writes := action == "AddPortMapping" || action == "DeletePortMapping" || strings.HasSuffix(action, "Pinhole")
	if writes && !w.own && (e.Why == NotAuthorized || e.Why == BadArgument || e.Why == NotPermitted) {
		e.Why = NotForOthers // a FRITZ!Box says 600 or 606 (fritzconnection 245, Open.NAT 80)
	}
	return e
}

// refused is err when the ISP router said no, else nil.
func refused(err error) *RefusedError {
	var r *RefusedError
	errors.As(err, &r)
	return r
}

// code is the number of a refusal, 0 for other errors.
func code(err error) int {
	if r := refused(err); r != nil {
		return r.Code
	}
	return 0
}

func protoName(proto string) string { return strings.ToUpper(proto) }

// entry reads the mapping of a port back; NotThere is its refusal when there is none.
func (g *Gateway) entry(ctx context.Context, w way, b *box, proto string, external uint16) (Mapping, error) {
	args, err := g.call(ctx, w, g.Address, b, b.wan, "GetSpecificPortMappingEntry",
		arg{"NewRemoteHost", b.remote}, arg{"NewExternalPort", fmt.Sprint(external)}, arg{"NewProtocol", protoName(proto)})
	if err != nil {
		return Mapping{}, err
	}
	m, ok := mapping(args)
	switch {
	case !ok && args["NewInternalClient"] == "": // how some say that there is none
		return Mapping{}, &RefusedError{Reply: "GetSpecificPortMappingEntry: empty", Code: noSuchEntry, Why: NotThere}
	case !ok:
		return Mapping{}, &GarbledError{Reply: "GetSpecificPortMappingEntry", What: "no address or port in it"}
	}
	m.Proto, m.External = strings.ToLower(proto), external
	m.Asked = time.Now()
	return m, nil
}

// holder finds who has a port now: by asking for it, or, where a box has no such
// question, in its list.
func (g *Gateway) holder(ctx context.Context, w way, b *box, proto string, external uint16) (Mapping, error) {
	m, err := g.entry(ctx, w, b, proto, external)
	if c := code(err); c == 0 || c == noSuchEntry {
		return m, err
	}
	list, none := g.list(ctx, w, b)
	if none != nil {
		return Mapping{}, err
	}
	for _, m := range list {
		if m.Proto == strings.ToLower(proto) && m.External == external && !m.Remote.IsValid() {
			return m, nil
		}
	}
	return Mapping{}, &RefusedError{Reply: "GetGenericPortMappingEntry: not in the list", Code: noSuchEntry, Why: NotThere}
}

// mapping reads the arguments that GetSpecific- and GetGenericPortMappingEntry
// share.
func mapping(args map[string]string) (Mapping, bool) {
	to, err := netip.ParseAddr(args["NewInternalClient"])
	port, err2 := strconv.ParseUint(args["NewInternalPort"], 10, 16)
	if err != nil || err2 != nil {
		return Mapping{}, false
	}
	m := Mapping{To: netip.AddrPortFrom(to.Unmap(), uint16(port)), Description: oneLine(args["NewPortMappingDescription"], 80),
		Lease: seconds(args["NewLeaseDuration"])}
	m.Disabled = args["NewEnabled"] == "0" || strings.EqualFold(args["NewEnabled"], "false")
	if remote, err := netip.ParseAddr(args["NewRemoteHost"]); err == nil && !remote.IsUnspecified() {
		m.Remote = remote
	}
	return m, true
}

// add opens a port, unless it leads elsewhere, and reads it back.
func (g *Gateway) add(ctx context.Context, w way, b *box, want Want) (Mapping, error) {
	have, err := g.holder(ctx, w, b, want.Proto, want.External)
	switch {
	case err == nil && have.To != want.mapping(g.opt.Client).To:
		return Mapping{}, &ConflictError{Want: want, Holder: have, Reply: "GetSpecificPortMappingEntry"}
	case err != nil && code(err) == 0:
		return Mapping{}, err
	case code(err) == 401 && b.protocol == TR064:
		return Mapping{}, err
	}
	if err := g.addOnly(ctx, w, b, want); err != nil {
		return Mapping{}, err
	}
	got, err := g.entry(ctx, w, b, want.Proto, want.External)
	m := want.mapping(g.opt.Client)
	switch {
	case code(err) == noSuchEntry:
		return Mapping{}, &DifferentError{Want: want}
	case err == nil && !want.is(got, g.opt.Client):
		return Mapping{}, &DifferentError{Want: want, Got: got}
	case err == nil:
		m = got
		m.Confirmed = true
	}
	m.Asked, m.Protocol, m.Public = time.Now(), b.protocol, g.Public
	return m, nil
}

// addOnly asks for a port, with the leases that the router may like.
func (g *Gateway) addOnly(ctx context.Context, w way, b *box, want Want) error {
	leases := []time.Duration{want.Lease}
	switch {
	case b.protocol == TR064:
		leases = []time.Duration{0} // it keeps what it is told
	case want.Lease != 0:
		leases = append(leases, 0) // 725 OnlyPermanentLeasesSupported
	default:
		leases = append(leases, longest) // some want a number
	}
	var err error
	for i, lease := range leases {
		_, err = g.call(ctx, w, g.Address, b, b.wan, "AddPortMapping",
			arg{"NewRemoteHost", b.remote}, arg{"NewExternalPort", fmt.Sprint(want.External)}, arg{"NewProtocol", protoName(want.Proto)},
			arg{"NewInternalPort", fmt.Sprint(want.inside())}, arg{"NewInternalClient", g.opt.Client.String()}, arg{"NewEnabled", "1"},
			arg{"NewPortMappingDescription", want.name()}, arg{"NewLeaseDuration", fmt.Sprint(int(lease / time.Second))})
		again := code(err) == onlyPermanent && lease != 0 || code(err) == 402 && w.own
		if err == nil || i == len(leases)-1 || !again {
			break
		}
	}
	switch c := code(err); {
	case c == conflict, c == otherwiseUsed:
		e := &ConflictError{Want: want, Reply: refused(err).Reply}
		if have, err := g.holder(ctx, w, b, want.Proto, want.External); err == nil {
			e.Holder = have
		}
		return e
	case c == 501: // miniupnpd's "I am behind a NAT myself" (facts deps 8), and anybody's "it did not work"
		if a, none := g.publicBy(ctx, w, b); refused(none) != nil || none == nil && !subnet.IsPublic(a) {
			return &RefusedError{Reply: refused(err).Reply, Code: c, Why: NoPublic}
		}
	}
	return err
}

// remove takes a mapping back that leads to the home router.
func (g *Gateway) remove(ctx context.Context, w way, b *box, m Mapping) error {
	have, err := g.holder(ctx, w, b, m.Proto, m.External)
	switch {
	case code(err) == noSuchEntry:
		return nil
	case err != nil:
		return err // whose it is cannot be told, so it is left
	case have.To.Addr() != g.opt.Client:
		return &ConflictError{Want: Want{Proto: m.Proto, External: m.External}, Holder: have, Reply: "GetSpecificPortMappingEntry"}
	}
	_, err = g.call(ctx, w, g.Address, b, b.wan, "DeletePortMapping",
		arg{"NewRemoteHost", b.remote}, arg{"NewExternalPort", fmt.Sprint(m.External)}, arg{"NewProtocol", protoName(m.Proto)})
	if code(err) == noSuchEntry {
		return nil
	}
	return err
}

// maxMappings bounds a list.
const maxMappings = 1000

// list reads all mappings.
func (g *Gateway) list(ctx context.Context, w way, b *box) ([]Mapping, error) {
	out := []Mapping{}
	type line struct {
		proto  string
		port   uint16
		remote netip.Addr
	}
	seen := map[line]bool{}
	for i := range maxMappings {
		args, err := g.call(ctx, w, g.Address, b, b.wan, "GetGenericPortMappingEntry", arg{"NewPortMappingIndex", fmt.Sprint(i)})
		if c := code(err); c == noSuchIndex || c == noSuchEntry || c == 402 {
			return out, nil // the end; some say 714 or 402
		}
		if err != nil {
			return out, err
		}
		m, ok := mapping(args)
		port, err := strconv.ParseUint(args["NewExternalPort"], 10, 16)
		if !ok || err != nil {
			continue // one line that nobody understands is no reason to hide the others
		}
		m.Proto, m.External, m.Asked = strings.ToLower(oneLine(args["NewProtocol"], 8)), uint16(port), time.Now()
		l := line{m.Proto, m.External, m.Remote}
		if seen[l] {
			return out, nil // it gives its last line for every number beyond the end
		}
		seen[l] = true
		out = append(out, m)
	}
	return out, nil
}

// publicBy asks for the address outside.
func (g *Gateway) publicBy(ctx context.Context, w way, b *box) (netip.Addr, error) {
	args, err := g.call(ctx, w, g.Address, b, b.wan, "GetExternalIPAddress")
	if err != nil {
		return netip.Addr{}, err
	}
	a, err := netip.ParseAddr(args["NewExternalIPAddress"])
	if err != nil || a.IsUnspecified() {
		return netip.Addr{}, &RefusedError{Reply: "GetExternalIPAddress: none", Why: NoPublic}
	}
	return a.Unmap(), nil
}
