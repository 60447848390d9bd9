package owrt

import (
	"fmt"
	"sort"
	"strings"

	"github.com/heimweg/heimweg/internal/lab/owrt/ash"
	"github.com/heimweg/heimweg/internal/lab/owrt/boxfs"
	"github.com/heimweg/heimweg/internal/lab/owrt/busybox"
	"github.com/heimweg/heimweg/internal/router"
)

// release is what differs between the lines and is printed somewhere.
type release struct {
	revision, codename, kernel, build string
	vermagic                          string // of the kernel's build, as modules name it
}

// Revisions, kernels and code names: facts OpenWrt sections 2 and 8; where the
// facts name no revision the number is made up. Kernels and their builds are those of
// the lab's download server.
var releases = map[router.Line]release{
	router.Line2102: {"r16847-f8282da11e", "", "5.4.238", "arm_cortex-a7_neon-vfpv4", "9e9a2b6d5b6b4c4c8f1d6b1b5a8f2a01"},
	router.Line2203: {"r20341-591b7e93d3", "", "5.10.221", "arm_cortex-a7_neon-vfpv4", "0f5c2c1a7b9d4e6f8a0b1c2d3e4f5a02"},
	router.Line2305: {"r24106-10cc5fcd00", "", "5.15.189", "arm_cortex-a7_neon-vfpv4", "3b1f6d8c2e4a4b5c9d7e8f0a1b2c3d03"},
	router.Line2410: {"r28959-29397011cc", "", "6.6.93", "arm_cortex-a7_neon-vfpv4", "5c7d9e0f1a2b3c4d5e6f7a8b9c0d1e04"},
	router.Line2512: {"r33051-f5dae5ece4", "", "6.12.40", "arm_cortex-a7_neon-vfpv4", "6d8e0f1a2b3c4d5e6f7a8b9c0d1e2f05"},
}

// image fills the file system with what the firmware image holds.
func (b *Box) image(f *boxfs.FS) {
	line := b.Line()
	for _, d := range []string{"/bin", "/sbin", "/usr/bin", "/usr/sbin", "/usr/lib", "/usr/share", "/lib/netifd/proto", "/lib/functions", "/lib/upgrade/keep.d", "/etc/config",
		"/etc/init.d", "/etc/rc.d", "/etc/uci-defaults", "/etc/hotplug.d/iface", "/etc/crontabs", "/root", "/overlay/upper", "/rom", "/mnt", "/www", "/tmp", "/dev", "/proc", "/sys"} {
		f.MkdirAll(d, 0o755)
	}
	f.MkdirAll("/etc/dropbear", 0o700)
	f.Symlink("tmp", "/var")
	put := func(name, text string, mode int) { f.WriteFile(name, []byte(text), 0o644); f.Chmod(name, modeOf(mode)) }
	b.programs(f)
	for name, text := range scripts {
		put(name, text, 0o755)
	}
	for name, s := range services {
		if s.only != nil && !s.only(b.opt) {
			continue
		}
		text := fmt.Sprintf("#!/bin/sh /etc/rc.common\n\nSTART=%02d\n%sUSE_PROCD=1\n\nstart_service() {\n\t/sbin/.service %[3]s start\n}\n\nstop_service() {\n\t/sbin/.service %[3]s stop\n}\n\nreload_service() {\n\t/sbin/.service %[3]s reload\n}\n\nboot() {\n\t/sbin/.service %[3]s boot\n}\n",
			s.start, map[bool]string{true: fmt.Sprintf("STOP=%02d\n", s.stop), false: ""}[s.stop > 0], name)
		put("/etc/init.d/"+name, text, 0o755)
		f.Symlink("../init.d/"+name, fmt.Sprintf("/etc/rc.d/S%02d%s", s.start, name))
	}
	put("/etc/passwd", "root:x:0:0:root:/root:/bin/ash\ndaemon:*:1:1:daemon:/var:/bin/false\nnobody:*:65534:65534:nobody:/var:/bin/false\n", 0o644)
	// The root field is empty in every release (facts 3.1).
	put("/etc/shadow", "root::0:0:99999:7:::\ndaemon:*:0:0:99999:7:::\nnobody:*:0:0:99999:7:::\n", 0o600)
	put("/etc/group", "root:x:0:\nnogroup:x:65534:\n", 0o644)
	put("/etc/hosts", "127.0.0.1 localhost\n\n::1     localhost ip6-localhost ip6-loopback\n", 0o644)
	put("/etc/sysupgrade.conf", "## This file contains files and directories that should\n## be preserved during an upgrade.\n\n# /etc/example.conf\n# /etc/openvpn/\n", 0o644)
	put("/lib/upgrade/keep.d/base-files", "/etc/config/\n/etc/crontabs/\n/etc/dropbear/\n/etc/profile.d\n/etc/sysupgrade.conf\n/etc/sysctl.conf\n/etc/ethers\n", 0o644)
	put("/lib/upgrade/keep.d/base-files-essential", "# Essential files that will be always kept\n/etc/hosts\n/etc/inittab\n/etc/group\n/etc/passwd\n/etc/profile\n/etc/shadow\n/etc/shells\n/etc/shinit\n/etc/sysctl.d/\n/etc/rc.local\n", 0o644)
	put("/etc/rc.local", "# Put your custom commands here that should be executed once\n# the system init finished. By default this file does nothing.\n\nexit 0\n", 0o644)
	put("/etc/profile", "export PATH=\"/usr/sbin:/usr/bin:/sbin:/bin\"\n", 0o644)
	put("/etc/crontabs/root", "", 0o600)
	r := releases[line]
	put("/etc/openwrt_version", r.revision+"\n", 0o644)
	put("/etc/openwrt_release", fmt.Sprintf("DISTRIB_ID='OpenWrt'\nDISTRIB_RELEASE='%s'\nDISTRIB_REVISION='%s'\nDISTRIB_TARGET='%s'\nDISTRIB_ARCH='%s'\nDISTRIB_DESCRIPTION='OpenWrt %s %s'\nDISTRIB_TAINTS=''\n",
		b.Version(), r.revision, b.target(), r.build, b.Version(), r.revision), 0o644)
	put("/usr/lib/os-release", fmt.Sprintf("NAME=\"OpenWrt\"\nVERSION=\"%s\"\nID=\"openwrt\"\nID_LIKE=\"lede openwrt\"\nPRETTY_NAME=\"OpenWrt %s\"\nVERSION_ID=\"%s\"\nBUILD_ID=\"%s\"\nOPENWRT_BOARD=\"%s\"\nOPENWRT_ARCH=\"%s\"\nOPENWRT_RELEASE=\"OpenWrt %s %s\"\n",
		b.Version(), b.Version(), b.Version(), r.revision, b.target(), r.build, b.Version(), r.revision), 0o644)
	f.Symlink("../usr/lib/os-release", "/etc/os-release")
	put("/etc/board.json", b.boardJSON(), 0o644)
	put("/lib/netifd/proto/dhcp.sh", "#!/bin/sh\n", 0o755)
	put("/lib/netifd/proto/dhcpv6.sh", "#!/bin/sh\n", 0o755)
	put("/lib/netifd/proto/ppp.sh", "#!/bin/sh\n", 0o755)
	for name, text := range b.romConfigs() {
		put("/etc/config/"+name, text, 0o600)
		if name != "rpcd" {
			put("/etc/config/"+name, text, 0o600)
		}
	}
	b.packageFiles(f)
}

// newer busybox has more applets; these are missing everywhere (facts 3.1):
// nohup, timeout, base64, stat, od, diff, realpath, chpasswd, arping, xxd.
var notInImage = map[string]func(router.Line) bool{
	"setsid":   func(l router.Line) bool { return l.Before(router.Line2410) },
	"nice":     func(router.Line) bool { return true },
	"printenv": func(router.Line) bool { return true },
	"whoami":   func(router.Line) bool { return true },
	"pkill":    func(router.Line) bool { return true },
	"usleep":   func(router.Line) bool { return true },
}

// programs puts the file of every program of the image in place.
func (b *Box) programs(f *boxfs.FS) {
	dirs := map[string]string{"sbin": "ifup ifdown ifstatus reload_config logread fw4 fw3 uci ubus ip mount start-stop-daemon wifi sysupgrade firstboot mtd fritz_tffs_nand reboot poweroff hotplug-call .service devstatus service",
		"usr/bin":  "[ test awk basename cmp cut dirname du env expr find flock free head hexdump id killall md5sum passwd printf readlink sha256sum seq sort tail tee tr uniq uptime wc which xargs yes jsonfilter opkg apk wget uclient-fetch jshn logger pgrep crontab printenv whoami",
		"usr/sbin": "nft iptables ip6tables iptables-save brctl dropbear dnsmasq crond ubirmvol ubinfo"}
	where := map[string]string{}
	for d, names := range dirs {
		for _, n := range strings.Fields(names) {
			where[n] = d
		}
	}
	var names []string
	for n := range busybox.Applets() {
		names = append(names, n)
	}
	for n := range b.boxPrograms() {
		names = append(names, n)
	}
	sort.Strings(names)
	for _, n := range names {
		if gone := notInImage[n]; gone != nil && gone(b.Line()) || n == "wg" || !b.hasProgram(n) {
			continue
		}
		d := where[n]
		if d == "" {
			d = "bin"
		}
		f.WriteFile("/"+d+"/"+n, ash.ELF(n), 0o755)
	}
}

// hasProgram tells which package manager and firewall the line has.
func (b *Box) hasProgram(n string) bool {
	l := b.Line()
	switch n {
	case "opkg":
		return l.Before(router.Line2512)
	case "apk":
		return l.AtLeast(router.Line2512)
	case "fw3", "iptables", "ip6tables", "iptables-save":
		return l.Before(router.Line2203)
	case "fw4", "nft":
		return l.AtLeast(router.Line2203)
	case "fritz_tffs_nand", "ubirmvol", "ubinfo":
		return b.nand()
	}
	return true
}

// swconfig tells whether the switch is configured the old way: the 4040 up to
// 22.03, the 4020 always.
func (b *Box) swconfig() bool { return b.ports().swconfig(b.Line()) }

// layout is how a board's ports are called.
type layout struct {
	wan      string // device of the WAN port with DSA; "" for none
	swconfig func(router.Line) bool
	radios   []radio
}

// radio is one that `wifi config` finds; nothing goes through the air here.
type radio struct{ path, band, channel, htmode string }

var (
	radios4019 = []radio{{"platform/soc/a000000.wifi", "2g", "1", "HT20"}, {"platform/soc/a800000.wifi", "5g", "36", "VHT80"}}
	radios9561 = []radio{{"platform/ahb/18100000.wmac", "2g", "1", "HT20"}}
)

// ports of the boards that the emulator knows (OpenWrt
// target/linux/{ipq40xx,ath79}/…/board.d/02_network); another one is like the
// 4040 with DSA.
func (b *Box) ports() layout {
	never := func(router.Line) bool { return false }
	switch b.opt.Board {
	case "avm,fritzbox-4040":
		return layout{"wan", func(l router.Line) bool { return l.Before(router.Line2305) }, radios4019}
	case "avm,fritzbox-7530":
		return layout{"", never, radios4019} // four yellow ports and a DSL socket
	case "avm,fritz4020":
		return layout{"", func(router.Line) bool { return true }, radios9561}
	}
	return layout{"wan", never, nil}
}

func (b *Box) boardJSON() string {
	if b.swconfig() {
		return fmt.Sprintf(`{
	"model": {
		"id": "%s",
		"name": "%s"
	},
	"switch": {
		"switch0": {
			"enable": true,
			"reset": true,
			"ports": [
				{
					"num": 0,
					"device": "eth0",
					"need_tag": false,
					"want_untag": true
				},
				{
					"num": 1,
					"role": "lan"
				},
				{
					"num": 2,
					"role": "lan"
				},
				{
					"num": 3,
					"role": "lan"
				},
				{
					"num": 4,
					"role": "lan"
				}
			],
			"roles": [
				{
					"role": "lan",
					"ports": "1 2 3 4 0",
					"device": "eth0"
				}
			]
		}
	},
	"network": {
		"lan": {
			"ifname": "eth0",
			"device": "eth0",
			"protocol": "static"
		},
		"wan": {
			"ifname": "eth1",
			"device": "eth1",
			"protocol": "dhcp"
		}
	}
}
`, b.opt.Board, b.opt.Model)
	}
	wan := ""
	if d := b.ports().wan; d != "" {
		wan = fmt.Sprintf(",\n\t\t\"wan\": {\n\t\t\t\"device\": \"%s\",\n\t\t\t\"protocol\": \"dhcp\"\n\t\t}", d)
	}
	return fmt.Sprintf(`{
	"model": {
		"id": "%s",
		"name": "%s"
	},
	"network": {
		"lan": {
			"ports": [
				"lan1",
				"lan2",
				"lan3",
				"lan4"
			],
			"protocol": "static"
		}%s
	},
	"system": {
		"compat_version": "%s"
	}
}
`, b.opt.Board, b.opt.Model, wan, b.compat())
}

// romConfigs are the files in /etc/config that the image ships; network, system
// and wireless are made at first boot.
func (b *Box) romConfigs() map[string]string {
	l := b.Line()
	m := map[string]string{"firewall": firewallConfig(l), "dhcp": dhcpConfig(l), "dropbear": dropbearConfig(l), "ubootenv": "", "luci": ""}
	delete(m, "ubootenv")
	if !b.opt.LuCI {
		delete(m, "luci")
	} else {
		m["luci"] = "\nconfig core 'main'\n\toption lang 'auto'\n\toption mediaurlbase '/luci-static/bootstrap'\n\toption resourcebase '/luci-static/resources'\n\nconfig internal 'apply'\n\toption rollback '90'\n\toption holdoff '4'\n\toption timeout '5'\n\toption display '1.5'\n"
		m["rpcd"] = "config rpcd\n\toption socket /var/run/ubus/ubus.sock\n\toption timeout 30\n\nconfig login\n\toption username 'root'\n\toption password '$p$root'\n\tlist read '*'\n\tlist write '*'\n"
		days := "730"
		if l.AtLeast(router.Line2410) {
			days = "397"
		}
		m["uhttpd"] = fmt.Sprintf("\nconfig uhttpd 'main'\n\tlist listen_http '0.0.0.0:80'\n\tlist listen_http '[::]:80'\n\tlist listen_https '0.0.0.0:443'\n\tlist listen_https '[::]:443'\n\toption redirect_https '0'\n\toption home '/www'\n\toption rfc1918_filter '1'\n\toption max_requests '3'\n\toption max_connections '100'\n\toption cert '/etc/uhttpd.crt'\n\toption key '/etc/uhttpd.key'\n\toption cgi_prefix '/cgi-bin'\n\tlist lua_prefix '/cgi-bin/luci=/usr/lib/lua/luci/sgi/uhttpd.lua'\n\toption script_timeout '60'\n\toption network_timeout '30'\n\toption http_keepalive '20'\n\toption tcp_keepalive '1'\n\toption ubus_prefix '/ubus'\n\nconfig cert 'defaults'\n\toption days '%s'\n\toption key_type 'ec'\n\toption bits '2048'\n\toption ec_curve 'P-256'\n\toption country 'ZZ'\n\toption state 'Somewhere'\n\toption location 'Unknown'\n\toption commonname 'OpenWrt'\n", days)
	}
	return m
}

func dropbearConfig(l router.Line) string {
	if l.Before(router.Line2410) {
		return "config dropbear\n\toption PasswordAuth 'on'\n\toption RootPasswordAuth 'on'\n\toption Port         '22'\n#\toption BannerFile   '/etc/banner'\n"
	}
	return "config dropbear main\n\toption enable '1'\n\toption PasswordAuth 'on'\n\toption RootPasswordAuth 'on'\n\toption Port         '22'\n#\toption BannerFile   '/etc/banner'\n"
}

func dhcpConfig(l router.Line) string {
	extra := ""
	if l.AtLeast(router.Line2203) {
		extra = "\toption ednspacket_max '1232'\n\toption filter_aaaa '0'\n\toption filter_a '0'\n"
	}
	return "config dnsmasq\n\toption domainneeded '1'\n\toption boguspriv '1'\n\toption filterwin2k '0'\n\toption localise_queries '1'\n\toption rebind_protection '1'\n\toption rebind_localhost '1'\n\toption local '/lan/'\n\toption domain 'lan'\n\toption expandhosts '1'\n\toption nonegcache '0'\n\toption cachesize '1000'\n\toption authoritative '1'\n\toption readethers '1'\n\toption leasefile '/tmp/dhcp.leases'\n\toption resolvfile '/tmp/resolv.conf.d/resolv.conf.auto'\n\toption nonwildcard '1'\n\toption localservice '1'\n" + extra +
		"\nconfig dhcp 'lan'\n\toption interface 'lan'\n\toption start '100'\n\toption limit '150'\n\toption leasetime '12h'\n\toption dhcpv4 'server'\n\toption dhcpv6 'server'\n\toption ra 'server'\n\tlist ra_flags 'managed-config'\n\tlist ra_flags 'other-config'\n\nconfig dhcp 'wan'\n\toption interface 'wan'\n\toption ignore '1'\n\nconfig odhcpd 'odhcpd'\n\toption maindhcp '0'\n\toption leasefile '/tmp/hosts/odhcpd'\n\toption leasetrigger '/usr/sbin/odhcpd-update'\n\toption loglevel '4'\n"
}

// firewallConfig is the shipped /etc/config/firewall (facts 2 and 6.1; observed 7).
func firewallConfig(l router.Line) string {
	input, forward := "REJECT", "REJECT"
	if l.Before(router.Line2305) {
		input = "ACCEPT"
	}
	if l.AtLeast(router.Line2512) {
		forward = "DROP"
	}
	text := "config defaults\n\toption syn_flood\t1\n\toption input\t\t" + input + "\n\toption output\t\tACCEPT\n\toption forward\t\tREJECT\n" +
		"# Uncomment this line to disable ipv6 rules\n#\toption disable_ipv6\t1\n\n" +
		"config zone\n\toption name\t\tlan\n\tlist   network\t\t'lan'\n\toption input\t\tACCEPT\n\toption output\t\tACCEPT\n\toption forward\t\tACCEPT\n\n" +
		"config zone\n\toption name\t\twan\n\tlist   network\t\t'wan'\n\tlist   network\t\t'wan6'\n\toption input\t\tREJECT\n\toption output\t\tACCEPT\n\toption forward\t\t" + forward + "\n\toption masq\t\t1\n\toption mtu_fix\t\t1\n\n" +
		"config forwarding\n\toption src\t\tlan\n\toption dest\t\twan\n"
	rule := func(comment string, opts ...string) {
		text += "\n"
		if comment != "" {
			text += "# " + comment + "\n"
		}
		text += "config rule\n"
		for i := 0; i < len(opts); i += 2 {
			kind := "option"
			if strings.HasPrefix(opts[i], "list ") {
				kind, opts[i] = "list", opts[i][5:]
			}
			text += "\t" + kind + " " + opts[i] + "\t\t" + opts[i+1] + "\n"
		}
	}
	icmp := []string{"list icmp_type", "echo-request", "list icmp_type", "echo-reply", "list icmp_type", "destination-unreachable", "list icmp_type", "packet-too-big", "list icmp_type", "time-exceeded", "list icmp_type", "bad-header", "list icmp_type", "unknown-header-type"}
	rule("We need to accept udp packets on port 68,\n# see https://dev.openwrt.org/ticket/4108", "name", "Allow-DHCP-Renew", "src", "wan", "proto", "udp", "dest_port", "68", "target", "ACCEPT", "family", "ipv4")
	rule("Allow IPv4 ping", "name", "Allow-Ping", "src", "wan", "proto", "icmp", "icmp_type", "echo-request", "family", "ipv4", "target", "ACCEPT")
	rule("", "name", "Allow-IGMP", "src", "wan", "proto", "igmp", "family", "ipv4", "target", "ACCEPT")
	rule("Allow DHCPv6 replies", "name", "Allow-DHCPv6", "src", "wan", "proto", "udp", "dest_port", "546", "family", "ipv6", "target", "ACCEPT")
	rule("", "name", "Allow-MLD", "src", "wan", "proto", "icmp", "src_ip", "fe80::/10", "list icmp_type", "'130/0'", "list icmp_type", "'131/0'", "list icmp_type", "'132/0'", "list icmp_type", "'143/0'", "family", "ipv6", "target", "ACCEPT")
	in := append([]string{"name", "Allow-ICMPv6-Input", "src", "wan", "proto", "icmp"}, icmp...)
	in = append(in, "list icmp_type", "router-solicitation", "list icmp_type", "neighbour-solicitation", "list icmp_type", "router-advertisement", "list icmp_type", "neighbour-advertisement", "limit", "1000/sec", "family", "ipv6", "target", "ACCEPT")
	rule("Allow essential incoming IPv6 ICMP traffic", in...)
	icmp = []string{"list icmp_type", "echo-request", "list icmp_type", "echo-reply", "list icmp_type", "destination-unreachable", "list icmp_type", "packet-too-big", "list icmp_type", "time-exceeded", "list icmp_type", "bad-header", "list icmp_type", "unknown-header-type"}
	out := append([]string{"name", "Allow-ICMPv6-Forward", "src", "wan", "dest", "*", "proto", "icmp"}, icmp...)
	rule("Allow essential forwarded IPv6 ICMP traffic", append(out, "limit", "1000/sec", "family", "ipv6", "target", "ACCEPT")...)
	rule("", "name", "Allow-IPSec-ESP", "src", "wan", "dest", "lan", "proto", "esp", "target", "ACCEPT")
	rule("", "name", "Allow-ISAKMP", "src", "wan", "dest", "lan", "dest_port", "500", "proto", "udp", "target", "ACCEPT")
	return text
}

// networkConfig is what config_generate makes at the first boot (facts 6.1, observed 7).
func (b *Box) networkConfig(ula string) string {
	l := b.Line()
	ip := func(addr, mask, cidr string) string {
		if l.AtLeast(router.Line2512) {
			return "\tlist ipaddr '" + cidr + "'\n"
		}
		return "\toption ipaddr '" + addr + "'\n\toption netmask '" + mask + "'\n"
	}
	text := "\nconfig interface 'loopback'\n\toption device 'lo'\n\toption proto 'static'\n" + ip("127.0.0.1", "255.0.0.0", "127.0.0.1/8")
	text += "\nconfig globals 'globals'\n"
	if l.AtLeast(router.Line2512) {
		text += "\toption dhcp_default_duid '0004" + strings.ReplaceAll(ula[2:14], ":", "") + "000000000000'\n"
	}
	text += "\toption ula_prefix '" + ula + "'\n"
	text += "\nconfig device\n\toption name 'br-lan'\n\toption type 'bridge'\n"
	wan := b.ports().wan
	if b.swconfig() {
		text += "\tlist ports 'eth0'\n"
		wan = "eth1"
	} else {
		text += "\tlist ports 'lan1'\n\tlist ports 'lan2'\n\tlist ports 'lan3'\n\tlist ports 'lan4'\n"
	}
	text += "\nconfig interface 'lan'\n\toption device 'br-lan'\n\toption proto 'static'\n" + ip("192.168.1.1", "255.255.255.0", "192.168.1.1/24") + "\toption ip6assign '60'\n"
	if wan == "" {
		return text
	}
	text += "\nconfig interface 'wan'\n\toption device '" + wan + "'\n\toption proto 'dhcp'\n"
	text += "\nconfig interface 'wan6'\n\toption device '" + wan + "'\n\toption proto 'dhcpv6'\n"
	if b.swconfig() {
		text += "\nconfig switch\n\toption name 'switch0'\n\toption reset '1'\n\toption enable_vlan '1'\n\nconfig switch_vlan\n\toption device 'switch0'\n\toption vlan '1'\n\toption ports '1 2 3 4 0'\n"
	}
	return text
}

// wirelessConfig is what `wifi config` makes at the first boot: every radio off,
// each with one open network that nobody can join (OpenWrt mac80211.sh).
func (b *Box) wirelessConfig() string {
	var text strings.Builder
	for i, r := range b.ports().radios {
		band := "\toption band '" + r.band + "'\n"
		if b.Line().Before(router.Line2203) {
			band = "\toption hwmode '" + map[string]string{"2g": "11g", "5g": "11a"}[r.band] + "'\n"
		}
		fmt.Fprintf(&text, "\nconfig wifi-device 'radio%d'\n\toption type 'mac80211'\n\toption path '%s'\n%s\toption channel '%s'\n\toption htmode '%s'\n\toption disabled '1'\n", i, r.path, band, r.channel, r.htmode)
		fmt.Fprintf(&text, "\nconfig wifi-iface 'default_radio%d'\n\toption device 'radio%d'\n\toption network 'lan'\n\toption mode 'ap'\n\toption ssid 'OpenWrt'\n\toption encryption 'none'\n", i, i)
	}
	return text.String()
}

func (b *Box) systemConfig() string {
	tz := "\toption timezone 'UTC'\n"
	if b.Line().AtLeast(router.Line2512) {
		tz = "\toption timezone 'GMT0'\n\toption zonename 'UTC'\n"
	}
	return "\nconfig system\n\toption hostname 'OpenWrt'\n\toption compat_version '" + b.compat() + "'\n" + tz + "\toption ttylogin '0'\n\toption log_size '64'\n\toption urandom_seed '0'\n\nconfig timeserver 'ntp'\n\toption enabled '1'\n\toption enable_server '0'\n\tlist server '0.openwrt.pool.ntp.org'\n\tlist server '1.openwrt.pool.ntp.org'\n\tlist server '2.openwrt.pool.ntp.org'\n\tlist server '3.openwrt.pool.ntp.org'\n"
}
