package doctor

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/heimweg/heimweg/internal/blueprint"
	"github.com/heimweg/heimweg/internal/plan"
	"github.com/heimweg/heimweg/internal/router"
	"github.com/heimweg/heimweg/internal/trace"
)

// loginRules: does this computer get into the home router at all.
var loginRules = []Rule{
	{ID: "cable", What: "cable or Wi-Fi to the home router", Symptom: "heimweg does not find the router",
		Needs: []string{"login", "networks"}, judge: cable},
	{ID: "power", What: "the box is on", Symptom: "the router does not answer",
		After: []ID{"cable"}, Needs: []string{"login"}, judge: func(p *patient) outcome {
			return p.stuck(Silent, bad("the home router does not answer at %s", p.Login.Value.Addr).saw("%s", p.Login.Value.Why).
				do(ByHand, "look whether the box has light; pull its power plug, plug it in again, wait two minutes", "if it answers at another address: heimweg doctor --router ADDRESS"))
		}},
	{ID: "ssh", What: "SSH on the home router", Symptom: "the router answers, but nobody gets in",
		After: []ID{"power"}, Needs: []string{"login"}, judge: func(p *patient) outcome {
			o := bad("something answers at %s, and it has no SSH", p.Login.Value.Addr).saw("%s", p.Login.Value.Why).
				do(ByHand, "in the router's web page: System, Administration, SSH Access: Save & Apply", "or the address is that of another device: heimweg doctor --router ADDRESS")
			if p.Login.Value.Stuck == Straying {
				return o
			}
			return p.stuck(Refused, o)
		}},
	{ID: "host-key", What: "the router's host key", Symptom: "SSH warns of another host key",
		After: []ID{"ssh"}, Needs: []string{"login"}, judge: func(p *patient) outcome {
			return p.stuck(Strange, bad("the router at %s shows another host key than before", p.Login.Value.Addr).saw("%s", p.Login.Value.Why).
				causedBy("after a reflash or a reset this is expected; otherwise something else may be answering at this address").
				do(Command, "heimweg trust "+p.Login.Value.Addr, "if you flashed or reset the box"))
		}},
	{ID: "login", What: "login", Symptom: "the router lets nobody in",
		After: []ID{"host-key"}, Needs: []string{"login"}, judge: func(p *patient) outcome {
			return p.stuck(Denied, bad("the router does not let heimweg in").saw("%s", p.Login.Value.Why).
				do(Command, "heimweg doctor --identity FILE", "with the SSH key that the router knows; or in a terminal, with root's password"))
		}},
	{ID: "openwrt", What: "OpenWrt 21.02 or newer", Symptom: "the box runs something else",
		After: []ID{"login"}, Needs: []string{"login"}, judge: func(p *patient) outcome {
			return p.stuck(Other, bad("the box at %s does not run an OpenWrt that heimweg knows", p.Login.Value.Addr).saw("%s", p.Login.Value.Why).
				do(Command, "heimweg flash", "puts OpenWrt onto it"))
		}},
	{ID: "own-key", What: "heimweg's SSH key", Symptom: "heimweg asks for the password every time",
		Needs: []string{"login", "router"}, judge: func(p *patient) outcome {
			l := p.Login.Value
			if l.OwnKey == "" || l.Method != "password" || !slices.ContainsFunc(p.snap().Keys, func(k string) bool { return sameKey(k, l.OwnKey) }) {
				return ok()
			}
			return risk("the router has heimweg's key, and does not take it").saw("the login went by %s", l.Method).
				causedBy("SSH passes over keys in files that others may write").
				shell("chmod 755 /root; chmod 700 /etc/dropbear; chmod 600 /etc/dropbear/authorized_keys", "")
		}},
}

func cable(p *patient) outcome {
	l := p.Login.Value
	if l.Stuck != Silent {
		return ok()
	}
	next := "plug this computer into one of the home router's LAN ports, or join its Wi-Fi"
	if len(p.Networks.Value) == 0 {
		return bad("this computer is in no network").do(ByHand, next, "")
	}
	at, err := netip.ParseAddr(hostOf(l.Addr))
	if err != nil || slices.ContainsFunc(p.Networks.Value, func(n netip.Prefix) bool { return n.Masked().Contains(at) }) {
		return ok()
	}
	o := bad("this computer is not in the home router's network")
	for _, n := range p.Networks.Value {
		o = o.saw("this computer is %s, the router %s", n, at)
	}
	return o.do(ByHand, next, "or name the address that the router has now: heimweg doctor --router ADDRESS")
}

func hostOf(addr string) string {
	if ap, err := netip.ParseAddrPort(addr); err == nil {
		return ap.Addr().String()
	}
	return addr
}

func (p *patient) stuck(at Stuck, o outcome) outcome {
	if p.Login.Value.Stuck == at {
		return o
	}
	return ok()
}

// sameKey compares two lines of authorized_keys, whatever their comments.
func sameKey(a, b string) bool {
	x, y := strings.Fields(a), strings.Fields(b)
	return len(x) > 1 && len(y) > 1 && x[0] == y[0] && x[1] == y[1]
}

// Ages and figures of the box.
const (
	clockSlack = 2 * time.Minute // computers without a time service differ by less
	fixedLine  = 24              // the year of the oldest release line that still gets fixes (facts openwrt.md 9)
)

// boxRules: is the box itself well, and is nobody else at work on it.
var boxRules = []Rule{
	{ID: "formatting", What: "settings are on flash", Symptom: "all settings are gone after a power cut",
		Needs: []string{"router"}, judge: func(p *patient) outcome {
			if !p.snap().Space.Temporary {
				return ok()
			}
			return risk("the router is still preparing its flash: what is written now is lost at the next power cut").
				do(ByHand, "leave the box alone for some minutes, then run heimweg doctor again", "")
		}},
	{ID: "room", What: "room on flash", Symptom: "settings cannot be saved",
		Needs: []string{"router"}, judge: func(p *patient) outcome {
			if free := p.snap().Space.OverlayKB; free < plan.RoomForConfigKB {
				return risk("the router's flash is full: it cannot keep new settings").saw("%d kB are free, %d kB are needed", free, plan.RoomForConfigKB).
					do(ByHand, "remove files or packages from the router that nobody needs", "")
			}
			return ok()
		}},
	{ID: "config-readable", What: "configuration files can be read", Symptom: "the router ignores its settings",
		Needs: []string{"router"}, judge: configReadable},
	{ID: "key-file", What: "nobody else reads the private key", Symptom: "other programs on the router could read the tunnel's key",
		Needs: []string{"router"}, judge: func(p *patient) outcome {
			mode := p.snap().Modes["network"]
			if _, there := p.tunnelSection(); !there || mode == "" || strings.HasSuffix(mode, "00") {
				return ok()
			}
			return risk("every program on the router may read the tunnel's private key").saw("/etc/config/network has mode %s", mode).
				shell("chmod 600 /etc/config/network", "")
		}},
	{ID: "other-writer", What: "nobody else is changing settings", Symptom: "changes come back or vanish",
		Needs: []string{"router"}, judge: otherWriter},
	{ID: "override", What: "the files in /etc/config are the ones that count", Symptom: "changes have no effect",
		Needs: []string{"router"}, judge: func(p *patient) outcome {
			list := p.snap().Overrides
			if len(list) == 0 {
				return ok()
			}
			return risk("the router reads other files in place of its settings").saw("/var/run/uci has %s", strings.Join(list, ", ")).
				shell("rm /var/run/uci/"+strings.Join(list, " /var/run/uci/"), "a restart does the same")
		}},
	{ID: "unfinished", What: "no change is half done", Symptom: "the router takes settings back by itself",
		Needs: []string{"router"}, judge: func(p *patient) outcome {
			half := p.snap().Pending
			if half == nil {
				return ok()
			}
			o := risk("a change by heimweg was begun and not confirmed")
			if !half.Since.IsZero() {
				o = o.saw("run %s, begun %s by the router's clock", half.ID, half.Since.UTC().Format("2006-01-02 15:04:05"))
			}
			if half.Armed {
				o = o.saw("another heimweg may be at work on it; without its word the router takes its old settings back %s after that", half.Deadline)
			}
			return o.do(Plan, applyCommand, "waits until it is taken back, or takes it back, and begins again")
		}},
	{ID: "clock", What: "the router's clock", Symptom: "certificates are not valid yet; packages cannot be fetched",
		Needs: []string{"router", "clock"}, judge: func(p *patient) outcome {
			off := p.snap().Time.Sub(p.Clock.Value)
			if off.Abs() <= clockSlack {
				return ok()
			}
			way := "ahead"
			if off < 0 {
				way = "behind"
			}
			return risk("the router's clock is %s %s", span(off.Abs()), way).saw("the router says %s", p.snap().Time.UTC().Format("2006-01-02 15:04")).
				causedBy("the box has no clock of its own: it asks the internet after every start").
				shell("service sysntpd restart", "and look whether it reaches the internet")
		}},
	{ID: "harmful-package", What: "no harmful package", Symptom: "the tunnel vanishes every ten minutes; a strange login works",
		Needs: []string{"router"}, judge: func(p *patient) outcome {
			if !p.snap().Has(blueprint.Harmful) {
				return ok()
			}
			return bad("the package %s is on the router: it deletes tunnels, and lets strangers in", blueprint.Harmful).
				causedBy("every ten minutes it removes interfaces like this tunnel, and it has a login with a published password").
				shell(map[bool]string{true: "apk del ", false: "opkg remove "}[p.snap().Board.Apk]+blueprint.Harmful, "then heimweg apply")
		}},
	{ID: "harmful-job", What: "no timed job deletes tunnels", Symptom: "the tunnel vanishes every ten minutes",
		After: []ID{"harmful-package"}, Needs: []string{"cron"}, judge: func(p *patient) outcome {
			for _, l := range p.Cron.Value {
				if strings.Contains(l, "wg-installer") || strings.Contains(l, "wg_installer") || strings.Contains(l, "wginstaller") {
					return bad("a timed job on the router deletes tunnels").saw("%s", strings.TrimSpace(l)).causedBy("it was left behind by %s", blueprint.Harmful).
						shell(`sed -i '/wg.\{0,1\}installer/d' /etc/crontabs/root; service cron restart`, "")
				}
			}
			return ok()
		}},
	{ID: "harmful-login", What: "no login with a published password", Symptom: "strangers in the LAN can log in",
		After: []ID{"harmful-package"}, Needs: []string{"services"}, judge: func(p *patient) outcome {
			d := p.Services.Value["rpcd"]
			if d == nil {
				return ok()
			}
			for _, s := range d.OfType("login") {
				if u, _ := s.Get("username"); u == "wginstaller" {
					return risk("the router has a login with a published password").saw("user wginstaller in /etc/config/rpcd").causedBy("it was left behind by %s", blueprint.Harmful).
						shell("uci delete rpcd."+s.Name+"; uci commit rpcd; service rpcd restart", "")
				}
			}
			return ok()
		}},
	{ID: "release", What: "the release still gets fixes", Symptom: "known holes stay open",
		Needs: []string{"router"}, judge: func(p *patient) outcome {
			r := p.snap().Board.Release
			if r.Effective().Year >= fixedLine {
				return ok()
			}
			return risk("OpenWrt %s gets no fixes any more", r.Version).
				do(Command, "heimweg upgrade", "to "+router.Lines()[len(router.Lines())-1].String()+", with the settings")
		}},
	{ID: "flash-errors", What: "flash without errors", Symptom: "the box hangs, or loses settings",
		Needs: []string{"router", "log"}, judge: flashErrors},
}

func configReadable(p *patient) outcome {
	var names []string
	for name := range p.snap().Broken {
		names = append(names, name)
	}
	if len(names) == 0 {
		return ok()
	}
	slices.Sort(names)
	return bad("the router cannot read /etc/config/%s", names[0]).saw("%s", p.snap().Broken[names[0]]).
		do(ByHand, "correct that line of /etc/config/"+names[0]+" on the router, or put back the copy in /etc/heimweg/undo", "")
}

func otherWriter(p *patient) outcome {
	s := p.snap()
	switch {
	case len(s.Staged) > 0:
		return risk("somebody has unsaved changes on the router: %s", strings.Join(s.Staged, ", ")).
			shell("uci revert "+strings.Join(s.Staged, " "), "drops them; uci changes shows them, uci commit keeps them")
	case s.LuciApply:
		return risk("the router's web page is in the middle of Save & Apply").
			do(ByHand, "wait 90 seconds, then run heimweg doctor again", "it takes its changes back by itself")
	}
	return ok()
}

func flashErrors(p *patient) outcome {
	for _, l := range p.Log.Value {
		low := strings.ToLower(l)
		if (strings.Contains(low, "jffs2") || strings.Contains(low, "ubi") || strings.Contains(low, "spi")) && (strings.Contains(low, "error") || strings.Contains(low, "failed") || strings.Contains(low, "timeout")) {
			o := risk("the router's flash makes errors").saw("%s", l)
			if r := p.snap().Board.Release; p.snap().Board.Name == "avm,fritzbox-4040" && r.Effective().Before(router.Line2512) {
				return o.causedBy("OpenWrt before 25.12 drives the flash of this board wrongly").do(Command, "heimweg upgrade", "")
			}
			return o.do(Command, "heimweg backup", "before the box fails for good")
		}
	}
	return ok()
}

// span is a length of time for people.
func span(d time.Duration) string {
	switch {
	case d < 2*time.Hour:
		return fmt.Sprintf("%d minutes", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d hours", int(d.Hours()))
	}
	return fmt.Sprintf("%d days", int(d.Hours()/24))
}

// uplinkRules: does the home router reach the internet.
var uplinkRules = []Rule{
	{ID: "network-clash", What: "no network is there twice", Symptom: "the router has no internet, or the home LAN none",
		Needs: []string{"router"}, judge: clash},
	{ID: "wan", What: "the WAN side has an address", Symptom: "no device comes home, and the LAN has no internet",
		Needs: []string{"router"}, judge: wanUp},
	{ID: "default-route", What: "a way to the internet", Symptom: "no device comes home, and the LAN has no internet",
		After: []ID{"wan"}, Needs: []string{"router"}, judge: defaultRoute},
	{ID: "gateway", What: "the ISP router answers", Symptom: "no device comes home, and the LAN has no internet",
		After: []ID{"wan", "default-route", "network-clash"}, Needs: []string{"gateway"}, judge: func(p *patient) outcome {
			if p.Gateway.Value {
				return ok()
			}
			return bad("the ISP router does not answer the home router").
				do(ByHand, "look at the cable between the two routers, and whether the ISP router is on", "")
		}},
	{ID: "router-names", What: "the router finds names of the internet", Symptom: "names are not found, addresses work",
		After: []ID{"wan", "default-route", "gateway"}, Needs: []string{"resolves"}, judge: func(p *patient) outcome {
			if p.Resolves.Value {
				return ok()
			}
			return bad("the home router finds no names of the internet, so its devices find none either").
				shell("service dnsmasq restart", "and look which name server the ISP router gives it: ubus call network.interface.wan status")
		}},
}

// clash finds two interfaces with overlapping networks. The tunnel's own counts,
// too: nobody inside it would be reached.
func clash(p *patient) outcome {
	list := p.snap().Interfaces
	for i, a := range list {
		for _, b := range list[i+1:] {
			if !a.Up || !b.Up || a.Device == b.Device || a.Device == "lo" || b.Device == "lo" {
				continue
			}
			for _, x := range a.Addresses {
				for _, y := range b.Addresses {
					if x.Addr().IsLinkLocalUnicast() || y.Addr().IsLinkLocalUnicast() || !x.Masked().Overlaps(y.Masked()) {
						continue
					}
					return bad("the networks of %s and %s are the same to the router, so it sends packets the wrong way", a.Name, b.Name).
						saw("%s has %s, %s has %s", a.Name, x.Masked(), b.Name, y.Masked()).
						do(ByHand, "write another network and renumber = true under [[lan]] in home.toml, then heimweg apply", "the home LAN moves out of the way")
				}
			}
		}
	}
	return ok()
}

func wanUp(p *patient) outcome {
	t, found := dead(p.follow(trace.Door), trace.NoUplink)
	if !found {
		return ok()
	}
	o := p.died(t)
	o.finding.Remedies = nil
	return o.do(ByHand, "look at the cable between the home router and the ISP router, and at the ISP router's DHCP", "if somebody has switched the interface off: ifup wan on the home router")
}

func defaultRoute(p *patient) outcome {
	s := p.snap()
	if len(s.Routes) == 0 {
		return notKnown("the router's routes could not be read")
	}
	wg := p.home.Tunnel.Interface
	for _, r := range s.Routes {
		if r.Dst.Bits() == 0 && r.Dst.Addr().Is4() && r.Device != "" && r.Device != wg {
			return ok()
		}
	}
	if slices.ContainsFunc(s.Routes, func(r router.Route) bool { return r.Dst.Bits() == 0 && r.Device == wg }) {
		return ok() // way-out says it better
	}
	return bad("the home router knows no way to the internet").
		do(ByHand, "look at the ISP router's DHCP: it has to give the home router a gateway", "on a WAN side with a fixed address: option gateway in /etc/config/network")
}
