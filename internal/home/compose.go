package home

import (
	"fmt"
	"strconv"
	"strings"
)

// Compose writes a whole home.toml with a comment on each line, for a newcomer
// who opens the file for the first time. Parse reads it back as the same Home.
func Compose(h Home) []byte {
	c := &composer{}
	c.text(`# home.toml: what this household wants. heimweg reads it, and "heimweg plan" shows
# what would have to change on the home router. Nothing here is secret.
# Change what you like and run "heimweg apply". Lines that begin with # are comments.`)

	c.router(h.Router)

	c.section("[uplink]", "how the home router gets to the internet")
	c.str("kind", h.Uplink.Kind.String(), map[Kind]string{
		Behind:   "its WAN port is plugged into the ISP router",
		Direct:   "its WAN port has the public address itself",
		OneArmed: "it is an ordinary device in the ISP router's network",
	}[h.Uplink.Kind])
	if !h.Uplink.Network.IsZero() {
		c.str("network", h.Uplink.Network.String(), "the network between the two routers")
	}
	if h.Uplink.Kind != Direct {
		c.optional(string(h.Uplink.Mapping), "mapping", string(ByHand), "heimweg does not ask the ISP router to open the port; it says how it is done")
	} else if h.Uplink.Mapping != ByAsking {
		c.str("mapping", string(h.Uplink.Mapping), "heimweg asks no ISP router")
	}

	for i, l := range h.LANs {
		about := "a home network whose devices you want to reach"
		if i > 0 {
			about = "one more"
		}
		c.section("[[lan]]", about)
		c.str("interface", l.Interface, "what OpenWrt calls it")
		c.str("network", l.Network.String(), "its addresses")
		if l.Renumber {
			c.raw("renumber", "true", "the router may move this network to these addresses")
		}
	}

	c.tunnel(h.Tunnel)

	c.section("[reach]", "what your devices may reach once they are home")
	c.flag("home-lan", h.Reach.HomeLAN, "the devices at home")
	c.flag("uplink-lan", h.Reach.UplinkLAN, "the devices at the ISP router, and the ISP router itself")
	c.flag("internet", h.Reach.Internet, "everything else too: all their traffic goes through home")
	c.flag("nat-to-lan", h.Reach.NATToLAN, "devices at home see the router's address, so that all of them answer")

	c.section("[dns]", "who answers your devices when they look up a name")
	c.list("servers", h.DNS.Servers, `"router" is the home router; an empty list leaves it to the devices`)
	c.list("search", h.DNS.Search, "domains to try for short names: makes nas mean nas."+first(h.DNS.Search, DefaultSearch))

	c.ddns(h.DDNS)

	c.text(`
# Each device that may come home is a [[peer]]. "heimweg peer add phone" writes one,
# "heimweg peer remove phone" takes it out again.`)
	for _, p := range h.Peers {
		c.b.WriteString("\n" + peerBlock(p, "\n"))
	}
	return []byte(c.b.String())
}

func first(list []string, or string) string {
	if len(list) > 0 {
		return list[0]
	}
	return or
}

type composer struct{ b strings.Builder }

func (c *composer) router(r Router) {
	c.section("[router]", "the home router: the OpenWrt box that lets your devices come home")
	c.str("address", r.Address, "where it is, seen from this computer")
	if r.User != DefaultUser {
		c.str("user", r.User, "who logs in")
	}
	c.optional(r.Jump, "jump", "pi@192.168.178.20", "a computer to go through, if this one cannot reach it")
	if len(r.Packages) > 0 {
		c.list("packages", r.Packages, "programs that you like to have there")
	} else {
		c.sample("packages", `["nano", "mc"]`, "programs that you like to have there")
	}
	if r.Input != "" {
		c.str("input", r.Input, "what its firewall does with networks that nobody assigned")
	}
}

func (c *composer) tunnel(t Tunnel) {
	c.section("[tunnel]", "the WireGuard network that your devices are in while they are away")
	if t.Interface != DefaultInterface {
		c.str("interface", t.Interface, "its name on the router")
	}
	c.str("network", t.Network.String(), "its addresses; used nowhere else, the router has "+t.Network.First().Addr().String())
	if !t.Network6.IsZero() {
		c.str("network6", t.Network6.String(), "the same for IPv6")
	}
	c.raw("port", strconv.Itoa(int(t.Port)), "the UDP port that the ISP router has to let through")
	if t.MTU != 0 {
		c.raw("mtu", strconv.Itoa(t.MTU), "size of a packet in bytes")
	} else {
		c.sample("mtu", "1400", "size of a packet in bytes, where connections stall (DS-Lite)")
	}
	c.optional(t.Endpoint, "endpoint", "home.example.net", "the name or public address that devices call; without it heimweg finds it out")
	if t.EndpointPort != 0 {
		c.raw("endpoint-port", strconv.Itoa(int(t.EndpointPort)), "the port that they call, where it differs from port")
	}
}

func (c *composer) ddns(d DDNS) {
	if d == (DDNS{}) {
		c.section("# [ddns]", "a name that follows the home's public address, kept up to date by the home router")
		c.sample("service", quote("desec.io"), "who keeps the name, as OpenWrt's ddns-scripts call it; its password is asked for")
		c.sample("name", quote("home.example.net"), "the name; your devices call it")
		c.sample("user", quote("me"), "your name at the service")
		return
	}
	c.section("[ddns]", "a name that follows the home's public address; its password is on the router only")
	for _, l := range []struct{ key, value, about string }{
		{"service", d.Service, "who keeps the name, as OpenWrt's ddns-scripts call it"},
		{"update-url", d.UpdateURL, "what the router calls to tell its address"},
		{"name", d.Name, "the name; your devices call it"},
		{"user", d.User, "your name at the service"},
		{"address-url", d.AddressURL, "a page that tells the router its public IPv4 address"},
	} {
		if l.value != "" {
			c.str(l.key, l.value, l.about)
		}
	}
	if !d.IPv4 {
		c.flag("ipv4", false, "the IPv4 address is not told")
	}
	if d.IPv6 {
		c.flag("ipv6", true, "the home router's own IPv6 address is told, too")
	}
}

func (c *composer) text(s string) { c.b.WriteString(s + "\n") }

func (c *composer) section(header, about string) {
	fmt.Fprintf(&c.b, "\n%-36s # %s\n", header, about)
}

func (c *composer) raw(key, value, about string) {
	fmt.Fprintf(&c.b, "%-36s # %s\n", key+" = "+value, about)
}

// sample is a key that could be there.
func (c *composer) sample(key, value, about string) { c.raw("# "+key, value, about) }

func (c *composer) str(key, value, about string) { c.raw(key, quote(value), about) }

func (c *composer) flag(key string, value bool, about string) {
	c.raw(key, strconv.FormatBool(value), about)
}

func (c *composer) optional(value, key, example, about string) {
	if value != "" {
		c.str(key, value, about)
	} else {
		c.sample(key, quote(example), about)
	}
}

func (c *composer) list(key string, values []string, about string) {
	quoted := make([]string, len(values))
	for i, v := range values {
		quoted[i] = quote(v)
	}
	c.raw(key, "["+strings.Join(quoted, ", ")+"]", about)
}
