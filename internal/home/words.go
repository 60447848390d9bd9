package home

import (
	"errors"
	"net/netip"
	"regexp"
	"strconv"
	"strings"

	"github.com/heimweg/heimweg/internal/fault"
	"github.com/heimweg/heimweg/internal/key"
	"github.com/heimweg/heimweg/internal/subnet"
)

// The functions of this file judge one value each, without its place. Both the
// reader of the file and the commands that change it ask them, so that a name
// typed at the command line is refused with the same sentence.

func usage(code, format string, args ...any) *fault.Fault {
	return fault.NewUsage("home-"+code, format, args...)
}

// wrongNetwork turns a failure of subnet.ParseNetwork into a sentence.
func wrongNetwork(v string, err error) *fault.Fault {
	var bits *subnet.HostBitsError
	if errors.As(err, &bits) {
		return usage("host-bits", "%s is a host, not a network", bits.Given).From(err).Do("write %s", bits.Want)
	}
	f := usage("bad-network", "%s is not a network", show(v)) // without err as its cause: that one repeats the text
	var form *subnet.FormatError
	if !errors.As(err, &form) {
		return f.Do("write it like 192.168.1.0/24")
	}
	f.Because("%s", form.Why)
	if form.Want != "" {
		return f.Do("write %s", form.Want)
	}
	return f.Do("write it like 192.168.1.0/24")
}

// pastedURL recognizes what was copied from a browser: "http://name:80/path".
func pastedURL(key, v, example string) *fault.Fault {
	scheme, rest, ok := strings.Cut(v, "://")
	if !ok {
		return nil
	}
	f := usage("url", "%s is a web address; %s takes the bare name", show(v), key)
	if key == "endpoint" {
		f.Because("WireGuard speaks no %s, it calls a name or address by UDP", show(scheme))
	}
	host, _, _ := strings.Cut(rest, "/")
	if _, behind, ok := strings.Cut(host, "@"); ok {
		host = behind
	}
	if h, _, ok := cutPort(host); ok {
		host = h
	}
	host = strings.Trim(host, "[]")
	if hostName(host) == "" || isAddr(host) {
		return f.Do("write %s = %s", key, safeQuote(host))
	}
	return f.Do("%s", example)
}

func isAddr(v string) bool {
	_, err := netip.ParseAddr(v)
	return err == nil
}

// cutPort splits "host:port" and "[address]:port". A bare IPv6 address has
// colons, but no port.
func cutPort(v string) (host, port string, ok bool) {
	if isAddr(v) {
		return v, "", false
	}
	i := strings.LastIndexByte(v, ':')
	if i < 0 {
		return v, "", false
	}
	host, port = v[:i], v[i+1:]
	if strings.HasPrefix(host, "[") != strings.HasSuffix(host, "]") {
		return v, "", false
	}
	return strings.Trim(host, "[]"), port, true
}

var label = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?$`)

// hostName says why v is no host name, "" when it is one (RFC 1123).
func hostName(v string) string {
	if v == "" {
		return "it is empty"
	}
	if len(v) > 253 {
		return "it is longer than 253 characters"
	}
	labels := strings.Split(v, ".")
	for _, l := range labels {
		switch {
		case l == "":
			return "it has a dot too many"
		case len(l) > 63:
			return "a part between two dots is longer than 63 characters"
		case strings.Contains(l, "_"):
			return "names of hosts have no underscore"
		case !label.MatchString(l):
			return "only letters without accents, digits and hyphens may stand between the dots"
		}
	}
	if strings.Trim(labels[len(labels)-1], "0123456789") == "" {
		return "it ends like an address, but is none"
	}
	return ""
}

// localNames are endings that mean something at home only, and why.
var localNames = []struct{ end, why string }{
	{"fritz.box", "only the FRITZ!Box at home knows that name"},
	{"local", "names in .local are found by devices on the same cable only"},
	{"lan", "only the router at home knows names in .lan"},
	{"home", "only the router at home knows names in .home"},
	{"home.arpa", "only the router at home knows names in .home.arpa"},
	{"internal", "only the network at home knows names in .internal"},
}

// wrongEndpoint judges what peers shall call.
func wrongEndpoint(v string) *fault.Fault {
	const example = "write the name that points to home, such as endpoint = \"home.example.net\""
	if v == "" {
		return usage("bad-endpoint", "the endpoint is empty").Do("delete the line, then heimweg finds the public address out")
	}
	if f := pastedURL("endpoint", v, example); f != nil {
		return f
	}
	if host, port, ok := cutPort(v); ok {
		f := usage("endpoint-port", "the port does not belong into the endpoint")
		n, err := strconv.Atoi(port)
		if err != nil || (hostName(host) != "" && !isAddr(host)) {
			return f.Because("endpoint-port takes it, and port where both are the same").Do("%s", example)
		}
		return f.Do("write endpoint = %s and, unless port says the same, endpoint-port = %d", safeQuote(host), n)
	}
	if bare := strings.Trim(v, "[]"); bare != v && isAddr(bare) {
		return usage("bad-endpoint", "the address stands in brackets").Do("write endpoint = %s", quote(bare))
	}
	if a, err := netip.ParseAddr(v); err == nil {
		return wrongEndpointAddr(a)
	}
	if host, _, ok := strings.Cut(v, "/"); ok && (hostName(host) == "" || isAddr(host)) {
		return usage("bad-endpoint", "%s has something behind the name", show(v)).Do("write endpoint = %s", safeQuote(host))
	}
	if bare := strings.TrimSuffix(v, "."); bare != v && hostName(bare) == "" {
		return usage("bad-endpoint", "the name ends in a dot").Do("write endpoint = %s", safeQuote(bare))
	}
	if why := hostName(v); why != "" {
		return usage("bad-endpoint", "%s is neither a host name nor an address", show(v)).Because("%s", why).Do("%s", example)
	}
	if !strings.Contains(v, ".") {
		return usage("endpoint-local", "nobody away from home can look up %s", show(v)).
			Because("a name without a dot is known in one network only").Do("%s", example)
	}
	low := strings.ToLower(v)
	for _, l := range localNames {
		if low == l.end || strings.HasSuffix(low, "."+l.end) {
			return usage("endpoint-local", "nobody away from home can look up %s", show(v)).Because("%s", l.why).Do("%s", example)
		}
	}
	return nil
}

func wrongEndpointAddr(a netip.Addr) *fault.Fault {
	if bare := a.Unmap().WithZone(""); bare != a && subnet.IsPublic(a) {
		return usage("bad-endpoint", "%s is an unusual way to write an address", a).Do("write endpoint = %s", quote(bare.String()))
	}
	why := subnet.WhyNotPublic(a)
	if why == "" {
		return nil
	}
	f := usage("endpoint-private", "nobody away from home can call %s", a).Because("it is %s", why)
	switch {
	case subnet.IsCarrier(a):
		return f.Because("the provider gives this home no IPv4 address of its own, so no port can be opened there").
			Do("write a name that points to the home router's IPv6 address, or ask the provider for a public IPv4 address")
	case a.Unmap().IsPrivate() && a.Is4():
		return f.Because("the ISP router has the public address and hands the packets on").
			Do("write a name that points to the ISP router's public address, or delete the line and heimweg finds it out")
	}
	return f.Do("write the public address or a name for it, or delete the line and heimweg finds it out")
}

// wrongRouterAddress judges the way from this computer to the router.
func wrongRouterAddress(key, v string) *fault.Fault {
	if v == "" {
		return usage("bad-address", "the address of the home router is empty").Do("write it like %s = \"192.168.1.1\"", key)
	}
	if f := pastedURL(key, v, "write it like "+key+" = \"192.168.1.1\""); f != nil {
		return f
	}
	if user, host, ok := strings.Cut(v, "@"); ok {
		f := usage("bad-address", "the user does not belong into the address")
		if wrongUser(user) == nil && wrongRouterAddress(key, host) == nil {
			return f.Do("write %s = %s and user = %s", key, safeQuote(host), safeQuote(user))
		}
		return f.Do("write it like %s = \"192.168.1.1\" and user = \"root\"", key)
	}
	host, port, ok := cutPort(v)
	if ok {
		n, err := strconv.ParseInt(port, 10, 64)
		if err != nil {
			return usage("bad-address", "%s has no port number behind the colon", show(v)).Do("write it like %s = \"192.168.1.1:22\"", key)
		}
		if f := wrongPort("the number behind the colon of "+key, n, 22); f != nil {
			return f
		}
	}
	a, err := netip.ParseAddr(host)
	switch {
	case err == nil && (a.IsUnspecified() || a.IsMulticast()):
		return usage("bad-address", "%s is not an address of one device", a).Do("write it like %s = \"192.168.1.1\"", key)
	case err == nil:
		return nil
	}
	if p, err := netip.ParsePrefix(host); err == nil {
		return usage("bad-address", "%s is an address with the size of its network", show(v)).Do("write %s = %s", key, quote(p.Addr().String()))
	}
	if why := hostName(host); why != "" {
		return usage("bad-address", "%s is neither a host name nor an address", show(v)).Because("%s", why).Do("write it like %s = \"192.168.1.1\"", key)
	}
	return nil
}

var userName = regexp.MustCompile(`^[a-z_][a-z0-9_.-]{0,31}$`)

func wrongUser(v string) *fault.Fault {
	if userName.MatchString(v) {
		return nil
	}
	return usage("bad-user", "%s is not a user name", show(v)).Do("write user = \"root\", or delete the line")
}

func wrongJump(v string) *fault.Fault {
	user, host, ok := strings.Cut(v, "@")
	if !ok {
		host = v
	}
	bad := strings.Contains(v, "://") || wrongRouterAddress("jump", host) != nil
	if ok && !userName.MatchString(strings.ToLower(user)) {
		bad = true
	}
	if !bad {
		return nil
	}
	return usage("bad-jump", "%s is not a computer to go through", show(v)).Do("write it like jump = \"pi@192.168.178.20\" or jump = \"pi.example.net:2222\"")
}

var packageName = regexp.MustCompile(`^[a-z0-9][a-z0-9+._-]{0,63}$`)

// wrongPackage judges an extra package.
func wrongPackage(v string) *fault.Fault {
	switch {
	case v == "wg-installer-server":
		// facts: openwrt.md 1, number 15
		return usage("harmful-package", "%s is dangerous", show(v)).
			Because("it adds a login with a password that everybody knows, and a job that deletes WireGuard interfaces").
			Do("take it out of the list; heimweg needs nothing of it")
	case strings.ContainsAny(v, " ,"):
		return usage("bad-package", "%s are several names in one", show(v)).Do("put each name in quotes of its own: [\"nano\", \"mc\"]")
	case packageName.MatchString(v):
		return nil
	}
	return usage("bad-package", "%s is not the name of a package", show(v)).Do("write it as the package list does, such as \"nano\"")
}

var interfaceName = regexp.MustCompile(`^[A-Za-z0-9_]+$`)

// wrongInterface judges a name in OpenWrt's network configuration. It is a UCI
// section name (letters, digits, underscore).
func wrongInterface(v string) *fault.Fault {
	const next = "write a short name such as \"lan\""
	switch {
	case v == "":
		return usage("bad-interface", "the name of the interface is empty").Do(next)
	case !interfaceName.MatchString(v):
		f := usage("bad-interface", "%s is not the name of an interface", show(v)).
			Because("OpenWrt's configuration allows letters, digits and the underscore")
		if v == "br-lan" {
			return f.Because("br-lan is the device; its interface is called lan").Do("write interface = \"lan\"")
		}
		return f.Do(next)
	case len(v) > 15:
		return usage("bad-interface", "%s is longer than 15 characters", show(v)).Because("Linux allows no longer name").Do(next)
	case strings.HasPrefix(v, strings.TrimSuffix(SectionPrefix, "_")):
		return usage("bad-interface", "%s begins like the sections that heimweg makes for peers", show(v)).Do(next)
	}
	return nil
}

// taken are names that the router uses for something else.
var takenInterfaces = map[string]string{
	"lan": "the home LAN", "wan": "the side to the ISP router", "wan6": "the side to the ISP router", "loopback": "the router itself",
	"lo": "the router itself", "globals": "settings of all networks", "all": "settings of all interfaces", "default": "settings of new interfaces",
}

func wrongTunnelInterface(v string) *fault.Fault {
	if f := wrongInterface(v); f != nil {
		if n := len(f.Next) - 1; f.Next[n] == "write a short name such as \"lan\"" {
			f.Next[n] = "write a short name such as \"wg0\""
		}
		return f
	}
	if is, ok := takenInterfaces[v]; ok {
		return usage("bad-interface", "%s is the router's name for %s", show(v), is).Do("write interface = \"wg0\"")
	}
	return nil
}

// wrongTunnelNetwork judges the IPv4 network of the tunnel.
func wrongTunnelNetwork(n subnet.Network) *fault.Fault {
	switch {
	case subnet.WhyNotPublic(n.Prefix().Addr()) == "":
		return usage("tunnel-public", "%s belongs to somebody on the internet", n).
			Because("peers could not reach the addresses' owners any more").
			Do("write a private network such as 10.86.20.0/24")
	case !n.Prefix().Addr().IsPrivate() && !subnet.IsCarrier(n.Prefix().Addr()):
		return usage("tunnel-public", "%s is reserved for other uses", n).Do("write a private network such as 10.86.20.0/24")
	case n.Bits() > 29:
		return usage("tunnel-size", "%s has no room for the router and some peers", n).Do("write a larger one: %s", resized(n, 24))
	case n.Bits() < 16:
		return usage("tunnel-size", "%s takes more addresses than peers can ever use", n).
			Because("all of them would lead into the tunnel, also those of networks that peers visit").
			Do("write a smaller one: %s", resized(n, 24))
	}
	return nil
}

func resized(n subnet.Network, bits int) string {
	return subnet.NetworkOf(netip.PrefixFrom(n.Prefix().Addr(), bits)).String()
}

var ula = subnet.MustParse("fd00::/8")

// wrongTunnelNetwork6 judges the IPv6 network of the tunnel: a ULA /64.
func wrongTunnelNetwork6(n subnet.Network) *fault.Fault {
	switch {
	case !ula.Contains(n.Prefix().Addr()):
		return usage("tunnel-not-ula", "%s is not a private IPv6 network", n).
			Because("those begin with fd; the provider's own change when the provider likes").
			Do("write one with random digits behind fd, such as fd86:2012:3456::/64")
	case n.Bits() != 64:
		return usage("tunnel-size", "the IPv6 network of the tunnel has the size /64, and this is %s", n).Do("write %s", resized(n, 64))
	}
	return nil
}

// wrongPort judges a port that is not listened on by OpenWrt.
func wrongPort(what string, n int64, example int) *fault.Fault {
	if n >= 1 && n <= 65535 {
		return nil
	}
	return usage("bad-port", "%s is out of range; ports go from 1 to 65535", what).Do("write a number such as %d", example)
}

// routersPorts are UDP ports that OpenWrt's own programs listen on.
var routersPorts = map[int64]string{
	53: "name lookups (dnsmasq)", 67: "handing out addresses (dnsmasq)", 68: "getting an address (udhcpc)", 69: "starting computers by network (dnsmasq)",
	123: "the time of day (ntpd)", 546: "getting an IPv6 address (odhcp6c)", 547: "handing out IPv6 addresses (odhcpd)",
}

func wrongListenPort(n int64) *fault.Fault {
	if f := wrongPort("port", n, DefaultPort); f != nil {
		return f
	}
	if is, ok := routersPorts[n]; ok {
		f := usage("bad-port", "the router needs UDP port %d itself, for %s", n, is)
		if n == 53 || n == 123 {
			f.Because("to be called on port %d all the same, let the ISP router map it: endpoint-port = %d", n, n)
		}
		return f.Do("write port = %d", DefaultPort)
	}
	return nil
}

// wrongMTU judges the size of packets in the tunnel. WireGuard adds 60 bytes
// over IPv4 and 80 over IPv6; IPv6 needs 1280 (facts: openwrt.md 6.5).
func wrongMTU(n int64) *fault.Fault {
	if n == 0 || (n >= 1280 && n <= 1420) {
		return nil
	}
	f := usage("bad-mtu", "mtu is %d; it goes from 1280 to 1420", n)
	if n > 1420 {
		f.Because("WireGuard needs up to 80 of a packet's 1500 bytes")
	} else {
		f.Because("IPv6 allows nothing smaller than 1280")
	}
	return f.Do("write 1420 (most lines), 1412 (PPPoE), 1400 (DS-Lite) or 1280 (works everywhere), or delete the line")
}

func wrongKeepalive(n int64) *fault.Fault {
	if n >= 0 && n <= 65535 {
		return nil
	}
	return usage("bad-keepalive", "keepalive is %d; it counts seconds, from 0 (off) to 65535", n).
		Do("write keepalive = %d, which suits devices behind any NAT", DefaultKeepalive)
}

// wrongDNSServer judges one of the name servers for peers.
func wrongDNSServer(v string) *fault.Fault {
	if v == DNSRouter {
		return nil
	}
	a, err := netip.ParseAddr(v)
	switch {
	case err == nil && a.Zone() == "" && !a.IsUnspecified() && !a.IsLoopback() && !a.IsMulticast() && !a.IsLinkLocalUnicast():
		return nil
	case err == nil:
		return usage("bad-dns", "peers cannot ask %s", show(v)).Because("it is not an address that they can reach").
			Do("write \"%s\" or the address of a name server", DNSRouter)
	case strings.ContainsAny(v, " ,"):
		return usage("bad-dns", "%s are several addresses in one", show(v)).Do("put each address in quotes of its own")
	}
	return usage("bad-dns", "%s is not an IP address", show(v)).Because("a name server cannot be looked up by its name").
		Do("write \"%s\" for the home router, or an address such as \"192.168.1.1\"", DNSRouter)
}

// wrongSearch judges one of the domains that complete short names.
func wrongSearch(v string) *fault.Fault {
	why := hostName(v)
	if why == "" {
		return nil
	}
	return usage("bad-search", "%s is not a domain", show(v)).Because("%s", why).Do("write it like \"lan\" or \"fritz.box\", without a dot at either end")
}

// isPeerName is true for 1 to 32 of the characters a-z, 0-9, _ and -.
func isPeerName(v string) bool {
	for i := range len(v) {
		if c := v[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' {
			return false
		}
	}
	return v != "" && len(v) <= 32
}

// wrongPeerName judges the name of a peer.
func wrongPeerName(v string) *fault.Fault {
	if isPeerName(v) {
		return nil
	}
	switch {
	case v == "":
		return usage("bad-name", "the name of the peer is empty").Do("write a short name such as \"phone\"")
	case len(v) > 32:
		return usage("bad-name", "%s is longer than 32 characters", show(v)).Do("write a short name such as \"phone\"")
	}
	f := usage("bad-name", "%s is not a name for a peer", show(v)).Because("names have the letters a to z, digits, _ and -")
	if want := tidyName(v); want != "" && !mayBeSecret(v) {
		return f.Do("write %s", quote(want))
	}
	return f.Do("write a short name such as \"phone\"")
}

var spelled = strings.NewReplacer("ä", "ae", "ö", "oe", "ü", "ue", "ß", "ss", "é", "e", "è", "e", "à", "a", "á", "a", "ç", "c", "ñ", "n",
	" ", "-", ".", "-", "'", "", "’", "")

// tidyName makes a name out of what somebody called a device, "" when nothing
// is left of it: "Anna's Phone" becomes "annas-phone".
func tidyName(v string) string {
	v = spelled.Replace(strings.ToLower(v))
	v = strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-' || r == '_' {
			return r
		}
		return -1
	}, v)
	v = strings.Trim(v, "-_")
	return v[:min(len(v), 32)]
}

// publicKey reads a peer's public key. What was given is never repeated: it may
// be the private key, pasted by mistake.
func publicKey(v string) (key.Public, *fault.Fault) {
	k, err := key.ParsePublic(v)
	if err == nil {
		return k, nil
	}
	f := usage("bad-key", "this is not a public key").From(err)
	var form *key.FormatError
	if errors.As(err, &form) {
		f.Because("%s", form.Why)
	}
	switch {
	case v == "":
		f.Do("write the public key that the WireGuard app of the device shows")
	case v != strings.TrimSpace(v):
		f.Do("delete the blanks before and behind the key")
	default:
		f.Do("copy the public key again, with all 44 characters up to the last =")
	}
	return key.Public{}, f
}

// peerAddress reads a peer's own address in the tunnel.
func peerAddress(field, v string, four bool) (netip.Addr, *fault.Fault) {
	example := "write it like address = \"10.86.20.2\""
	if !four {
		example = "write it like address6 = \"fd86:2012:3456::2\""
	}
	a, err := netip.ParseAddr(v)
	if err != nil {
		if p, err := netip.ParsePrefix(v); err == nil {
			return netip.Addr{}, usage("bad-address", "%s is written without a size here", field).
				Because("heimweg puts /32, /24 and /128 where they belong").Do("write %s = %s", field, quote(p.Addr().String()))
		}
		return netip.Addr{}, usage("bad-address", "%s is not an address", show(v)).Do("%s", example)
	}
	switch {
	case a.Zone() != "" || a.Is4In6():
		return netip.Addr{}, usage("bad-address", "%s is an unusual way to write an address", show(v)).Do("%s", example)
	case four && a.Is6():
		return netip.Addr{}, usage("wrong-family", "%s is an IPv6 address; address takes the IPv4 one", a).Do("write it as address6 = \"%s\"", a)
	case !four && a.Is4():
		return netip.Addr{}, usage("wrong-family", "%s is an IPv4 address; address6 takes the IPv6 one", a).Do("write it as address = \"%s\"", a)
	}
	return a, nil
}

// TidyName makes a peer's name out of what somebody called a device, "" when
// nothing is left of it: "Anna's Phone" becomes "annas-phone".
func TidyName(text string) string { return tidyName(text) }
