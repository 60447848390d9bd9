package blueprint

import (
	"slices"
	"strings"

	"github.com/heimweg/heimweg/internal/fault"
	"github.com/heimweg/heimweg/internal/home"
	"github.com/heimweg/heimweg/internal/router"
)

// Tools is the one package the tunnel needs; it brings the kernel module
// (facts: OpenWrt section 7.1; observed section 6).
const Tools = "wireguard-tools"

// Harmful is the package that must not be on the same router: it opens a login
// with a published password and, every ten minutes, deletes interfaces whose name
// contains wg (facts: OpenWrt section 7.2).
const Harmful = "wg-installer-server"

// ipTool: on 25.12 wireguard-tools wants an `ip` that only ip-tiny or ip-full
// provide, and the package manager did not pick one by itself on 25.12.2 and
// 25.12.3 (facts: field number 46, openwrt/openwrt#23136).
var ipTool = Package{Name: "ip-tiny", Or: []string{"ip-full"}, Why: "wireguard-tools needs it on this release"}

// PackageNames lists the packages whose presence a snapshot should look for.
func PackageNames(h home.Home) []string {
	names := []string{Tools, ipTool.Name}
	names = append(names, ipTool.Or...)
	names = append(names, Harmful)
	names = append(names, ddnsPackages(h)...)
	for _, p := range h.Router.Packages {
		if !slices.Contains(names, p) {
			names = append(names, p)
		}
	}
	return names
}

// TunnelPackages are what the tunnel itself needs on a release.
func TunnelPackages(line router.Line) []Package {
	var out []Package
	if line.AtLeast(router.Line2512) {
		out = append(out, ipTool)
	}
	return append(out, Package{Name: Tools, Why: "WireGuard itself"})
}

// packages draws what to install: only what is missing, never an upgrade of
// everything (facts: OpenWrt section 7.5).
func (d *drawing) packages() {
	d.want.Packages = append(d.want.Packages, TunnelPackages(d.line)...)
	for _, name := range d.home.Router.Packages {
		switch {
		case name == Harmful:
			d.problem(fault.NewUsage("harmful-package", "the package %s is not installed by heimweg", name).
				Because("it adds a login with a published password, and every ten minutes deletes tunnels like this one").
				Do("take it out of packages under [router] in home.toml; nothing needs it"))
		case name == "luci-app-wireguard" && d.line.AtLeast(router.Line2410):
			d.problem(fault.NewUsage("package-gone", "the package %s no longer exists in OpenWrt %s", name, d.line).
				Do("write luci-proto-wireguard instead under [router] packages in home.toml, or leave it out"))
		case !validPackage(name):
			d.problem(fault.NewUsage("package-name", "%q cannot be the name of a package", name).
				Do("correct packages under [router] in home.toml"))
		case slices.ContainsFunc(d.want.Packages, func(p Package) bool { return p.Name == name || slices.Contains(p.Or, name) }):
			// Already there, or it takes an alternative's place: ip-full instead of ip-tiny.
			d.prefer(name)
		default:
			d.want.Packages = append(d.want.Packages, Package{Name: name, Why: "listed in home.toml"})
		}
	}
}

// prefer puts the alternative that the household lists in the first place.
func (d *drawing) prefer(name string) {
	for i, p := range d.want.Packages {
		if slices.Contains(p.Or, name) {
			d.want.Packages[i] = Package{Name: name, Why: p.Why}
		}
	}
}

func validPackage(name string) bool {
	if name == "" || strings.HasPrefix(name, "-") || strings.HasPrefix(name, ".") {
		return false
	}
	return strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.+_-") == ""
}

func (d *drawing) mapping() {
	if d.home.Uplink.Kind == home.Direct {
		return
	}
	m := &Mapping{Proto: "udp", External: d.home.Tunnel.CallPort(), Internal: d.home.Tunnel.Port}
	switch {
	case !d.oneArm():
		m.To = d.liveWAN().Addr()
	case len(d.want.LANs) > 0:
		m.To = d.want.LANs[0].Address.Addr()
	}
	d.want.Mapping = m
}

// remarks says what a person would otherwise find out by trial.
func (d *drawing) remarks() {
	if d.line.Before(router.Line2410) {
		d.note("release-end", "OpenWrt "+d.line.String()+" gets no fixes any more", "plan an upgrade to a current release")
	}
	if d.home.Uplink.Kind == home.Direct && d.home.Tunnel.CallPort() != d.home.Tunnel.Port {
		d.problem(fault.NewUsage("direct-endpoint-port", "peers would call port %d, but the router listens on %d and nothing in front of it translates", d.home.Tunnel.CallPort(), d.home.Tunnel.Port).
			Do("write the same number, or leave endpoint-port out of [tunnel] in home.toml"))
	}
	if !slices.Contains(d.home.DNS.Servers, home.DNSRouter) {
		return
	}
	iface := d.home.Tunnel.Interface
	listens := len(d.site.DNSInterfaces) == 0 || containsWord(d.site.DNSInterfaces, iface)
	if !listens || containsWord(d.site.DNSNotInterfaces, iface) {
		d.note("dns-deaf", "the router's name service is limited to certain interfaces and will not answer peers",
			"add "+iface+" to the interfaces of dnsmasq on the router (LuCI: DHCP and DNS)")
	}
}

func containsWord(list []string, word string) bool {
	for _, v := range list {
		if slices.Contains(strings.Fields(v), word) {
			return true
		}
	}
	return false
}
