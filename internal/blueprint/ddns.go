package blueprint

import (
	"github.com/heimweg/heimweg/internal/home"
	"github.com/heimweg/heimweg/internal/uci"
)

// DDNS is the package that tells a service the home's address; it brings the list
// of services (openwrt/packages net/ddns-scripts, 2.8.2).
const DDNS = "ddns-scripts"

// ddnsExtra are services whose updater is a package of its own.
var ddnsExtra = map[string]string{
	"cloudflare.com-v4": "ddns-scripts-cloudflare", "freedns.42.pl": "ddns-scripts-freedns", "godaddy.com-v1": "ddns-scripts-godaddy",
	"digitalocean.com-v2": "ddns-scripts-digitalocean", "dnspod.cn": "ddns-scripts-dnspod", "no-ip.com": "ddns-scripts-noip",
	"bind-nsupdate": "ddns-scripts-nsupdate", "route53-v1": "ddns-scripts-route53", "gandi.net": "ddns-scripts-gandi",
	"pdns": "ddns-scripts-pdns", "transip.nl": "ddns-scripts-transip", "ns1.com": "ddns-scripts-ns1",
}

// Names of our sections in config ddns.
const (
	SectionDDNS4 = "hw_ddns4"
	SectionDDNS6 = "hw_ddns6"
)

// ddnsPackages lists what the household's name needs.
func ddnsPackages(h home.Home) []string {
	if h.DDNS.IsZero() {
		return nil
	}
	if extra := ddnsExtra[h.DDNS.Service]; extra != "" {
		return []string{DDNS, extra}
	}
	return []string{DDNS}
}

// ddns draws one section per family (facts: OpenWrt section 6.7). Behind an ISP
// router the WAN address is private, and ddns-scripts does not publish such a one
// (upd_privateip 0), so the public one comes from a web page; for IPv6 the home
// router's own address is the public one. An interval below 10 minutes is
// pointless. cacert is left out: then uclient-fetch and curl judge certificates by
// the system's list. The password is a marker: the router keeps it. ddns-scripts
// itself hands it to uclient-fetch on the router's own command line, which root
// alone can see there (dynamic_dns_functions.sh, do_transfer).
func (d *drawing) ddns() {
	n := d.home.DDNS
	if n.IsZero() {
		return
	}
	for _, name := range ddnsPackages(d.home) {
		d.want.Packages = append(d.want.Packages, Package{Name: name, Why: "tells " + d.keeper() + " the home's address"})
	}
	if n.IPv4 {
		d.ddns4()
	}
	if n.IPv6 {
		d.ddns6()
	}
}

// keeper is who keeps the name, for people.
func (d *drawing) keeper() string {
	if s := d.home.DDNS.Service; s != "" {
		return s
	}
	return "the service"
}

func (d *drawing) ddns4() {
	iface := "wan"
	if d.oneArm() {
		iface = "lan"
	}
	source := []uci.Option{uci.Opt("ip_source", "network"), uci.Opt("ip_network", iface)}
	if d.home.Uplink.Kind != home.Direct {
		source = []uci.Option{uci.Opt("ip_source", "web")}
		if page := d.home.DDNS.AddressURL; page != "" {
			source = append(source, uci.Opt("ip_url", page))
		} else {
			d.note("ddns-page", "the home router asks http://checkip.dyndns.com for its public address, because its own one is private",
				`address-url under [ddns] in home.toml names another page, if you like`)
		}
	}
	d.ddnsSection(SectionDDNS4, iface, "0", source)
}

func (d *drawing) ddns6() {
	iface := "wan6"
	if d.oneArm() {
		iface = "lan"
	}
	if _, known := d.site.Interfaces[iface]; !known {
		d.note("ddns-no-ipv6", "the router has no interface "+iface+", so it has no IPv6 address to tell",
			"write ipv6 = false under [ddns] in home.toml, or set IPv6 up on the router")
	}
	d.ddnsSection(SectionDDNS6, iface, "1", []uci.Option{uci.Opt("ip_source", "network"), uci.Opt("ip_network", iface)})
}

func (d *drawing) ddnsSection(section, iface, six string, source []uci.Option) {
	n := d.home.DDNS
	options := []uci.Option{uci.Opt("enabled", "1")}
	if n.Service != "" {
		options = append(options, uci.Opt("service_name", n.Service))
	} else {
		options = append(options, uci.Opt("update_url", n.UpdateURL))
	}
	options = append(options, uci.Opt("lookup_host", n.Name), uci.Opt("domain", n.Name))
	if n.User != "" {
		options = append(options, uci.Opt("username", n.User))
	}
	options = append(options, uci.Option{Name: "password", Values: []uci.Value{Keep()}},
		uci.Opt("use_https", "1"), uci.Opt("use_ipv6", six))
	options = append(options, source...)
	options = append(options, uci.Opt("interface", iface), uci.Opt("check_interval", "10"), uci.Opt("check_unit", "minutes"))
	d.own("ddns", "the name "+n.Name+" follows the home's address", uci.NewSection("service", section, options...))
}
