package openwrt

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/heimweg/heimweg/internal/key"
	"github.com/heimweg/heimweg/internal/router"
	"github.com/heimweg/heimweg/internal/shell"
	"github.com/heimweg/heimweg/internal/uci"
)

// Access lets our own key in and gives root a password, in one round trip. An
// empty field leaves that part alone; a password that root already has stays.
type Access struct {
	AuthorizedKey string    // one line of an authorized_keys file
	PasswordHash  uci.Value // crypt form, "$5$…" or "$6$…"; hidden
}

// Grant carries out an Access.
func Grant(ctx context.Context, sh Shell, a Access) error {
	vars := env{"SETKEY": "", "SETHASH": ""}
	files := map[string][]byte{}
	if a.AuthorizedKey != "" {
		vars["SETKEY"] = "yes"
		files["key"] = []byte(strings.TrimSpace(a.AuthorizedKey) + "\n")
	}
	if hash := a.PasswordHash.Reveal(); hash != "" {
		vars["SETHASH"] = "yes"
		files["hash"] = []byte(hash + "\n")
	}
	_, err := run(ctx, sh, vars, "access", "access", archive(files), "access.sh")
	return err
}

// A File is one config before and after a change.
type File struct {
	Config  string
	OldHash string    // SHA-256 of what is there now, hex
	Text    uci.Value // what shall be there; hidden, because it holds keys
}

// A Reload is a way to make a written change live.
type Reload int

// Which command makes what live is observed on 23.05.6, 24.10.8 and 25.12.5; no
// return code of theirs is trusted, the result is looked at instead.
const (
	// ReloadNetwork: `ubus call network reload`. Brings a new interface up and
	// applies key, port and MTU; not peers, not a changed list of addresses. On
	// swconfig boxes it does not reprogram the switch, unlike the init script.
	ReloadNetwork Reload = iota
	// RestartInterface: ifup. Applies everything, tears the interface down: an
	// active peer is without it for about 15 s.
	RestartInterface
	// RenewInterface: `ubus call network.interface.X renew`, 25.12 and newer:
	// applies peers and addresses and keeps sessions. Older ones answer 0 and do
	// nothing.
	RenewInterface
	// ReloadFirewall: fw4 or fw3 reload, one transaction; established flows stay.
	ReloadFirewall
	// ReloadDNS: dnsmasq, which is DNS and DHCP.
	ReloadDNS
	// ReloadRA: odhcpd, which is router advertisements and DHCPv6.
	ReloadRA
	// ReloadSSH: dropbear; open connections stay.
	ReloadSSH
	// ReloadSystem: the router's name and time zone.
	ReloadSystem
	// ReloadWifi: the radios; who is in is let go for a moment.
	ReloadWifi
	// RestartDDNS: the updater of the home's name, which tells the address at once.
	RestartDDNS
)

// How long the router waits for a confirmation. OpenWrt's own 30 s was too short
// for people's computers to get a new address (openwrt/luci#3628).
const (
	GuardShort = 60 * time.Second
	GuardLong  = 120 * time.Second // when the network itself changes
)

// A Change is a guarded write.
type Change struct {
	ID        string
	Files     []File
	Reloads   []Reload
	Interface string // the tunnel's
	Fw4       bool
	// Guard is how long the router waits for Confirm before it takes the change
	// back. Facts: 60 s is enough, 120 s when the network itself changes, because
	// the computer's DHCP lease has to follow.
	Guard time.Duration
	// Wait is how long the script waits for the activation to end, when the
	// connection survives it.
	Wait time.Duration
	// Delay lets the script's answer get out before an activation that moves the
	// router's own address; whole seconds.
	Delay time.Duration
	// Up: the tunnel interface shall be up afterwards.
	Up bool
	// Peers are set on the live interface after the reloads.
	Peers []PeerChange
}

// PeerChange sets or removes one peer on the live interface.
type PeerChange struct {
	PublicKey  key.Public
	Remove     bool
	Preshared  key.Preshared // zero: none
	AllowedIPs []netip.Prefix
}

// Begin writes the files under two guards and makes them live, in one round
// trip. After it the change must be confirmed over a new connection within
// Guard, or the router takes it back.
//
// Errors: *Refusal, after which nothing is changed or everything was taken back;
// the shell's *LostError, after which it is not known what happened: look again.
func Begin(ctx context.Context, sh Shell, c Change) error {
	vars := env{
		"ID": c.ID, "LOCKSECONDS": seconds(lockAge), "GUARD": seconds(c.Guard),
		"ACTIVATESECONDS": seconds(c.Wait),
	}
	files := map[string][]byte{
		"restore.sh":  file("restore.sh"),
		"guard.sh":    file("guard.sh"),
		"timer.sh":    file("timer.sh"),
		"reload.sh":   c.undoScript(),
		"activate.sh": c.activateScript(),
	}
	addFiles(vars, files, c.Files)
	for i, p := range c.Peers {
		if !p.Preshared.IsZero() {
			files[pskFile(i)] = []byte(p.Preshared.Reveal() + "\n")
		}
	}
	_, err := run(ctx, sh, vars, "begin", "begun", archive(files), "begin.sh")
	return err
}

func addFiles(vars env, files map[string][]byte, fs []File) {
	var changed []string
	for _, f := range fs {
		changed = append(changed, f.Config)
		text := []byte(f.Text.Reveal())
		if len(text) > 0 && !bytes.HasSuffix(text, []byte("\n")) {
			text = append(text, '\n')
		}
		files[f.Config] = text
		s := sha256.Sum256(text)
		vars["OLD_"+f.Config] = f.OldHash
		vars["NEW_"+f.Config] = hex.EncodeToString(s[:])
	}
	vars["CHANGED"] = strings.Join(changed, " ")
}

func seconds(d time.Duration) string { return strconv.Itoa(int(d.Seconds())) }

func pskFile(i int) string { return "psk." + strconv.Itoa(i) }

// activateScript makes the change live. It runs detached, in RAM, and says that
// it came to its end.
func (c Change) activateScript() []byte {
	var b strings.Builder
	b.WriteString("#!/bin/sh\nR=/tmp/heimweg\n{\n")
	if c.Delay > 0 {
		b.WriteString("sleep " + seconds(c.Delay) + "\n")
	}
	for _, r := range c.Reloads {
		b.WriteString(c.command(r))
	}
	if c.Up {
		fmt.Fprintf(&b, "n=0\nuntil wg show %[1]s >/dev/null 2>&1 && ubus call network.interface.%[1]s status | grep -q '\"up\": true'; do\n"+
			"\tn=$((n + 1))\n\t[ $n -lt 50 ] || break\n\tsleep 0.2\ndone\n", c.Interface)
	}
	b.WriteString(wgSet(c.Interface, c.Peers, "$R/in/"))
	b.WriteString("} >$R/activate.log 2>&1\nrm -rf $R/in\necho done >$R/activated.new\nmv $R/activated.new $R/activated\n")
	return []byte(b.String())
}

// undoScript makes the old files live again after they were put back. A reload
// alone would leave the new addresses and peers standing, so the interface is
// started again where it still exists.
func (c Change) undoScript() []byte {
	var b strings.Builder
	for _, r := range c.Reloads {
		if r == RestartInterface || r == RenewInterface {
			continue
		}
		b.WriteString(c.command(r))
	}
	if c.Interface != "" {
		fmt.Fprintf(&b, "[ -z \"$(uci -q get network.%[1]s)\" ] || ifup %[1]s\n", c.Interface)
	}
	return []byte(b.String())
}

func (c Change) command(r Reload) string {
	switch r {
	case ReloadNetwork:
		return "ubus call network reload\n"
	case RestartInterface:
		return "ifup " + c.Interface + "\n"
	case RenewInterface:
		return "ubus call network.interface." + c.Interface + " renew\n"
	case ReloadFirewall:
		if c.Fw4 {
			return "fw4 -q reload\n"
		}
		return "fw3 -q reload\n"
	case ReloadDNS:
		return "/etc/init.d/dnsmasq reload\n"
	case ReloadRA:
		return "[ ! -x /etc/init.d/odhcpd ] || /etc/init.d/odhcpd reload\n"
	case ReloadSSH:
		return "/etc/init.d/dropbear reload\n"
	case ReloadSystem:
		return "[ ! -x /etc/init.d/system ] || /etc/init.d/system reload\n"
	case RestartDDNS:
		return "[ ! -x /etc/init.d/ddns ] || { /etc/init.d/ddns enable; /etc/init.d/ddns restart; }\n"
	case ReloadWifi:
		return "[ -z \"$(command -v wifi)\" ] || wifi reload\n"
	}
	panic(fmt.Sprintf("openwrt: no reload %d", r))
}

// wgSet writes the commands that set peers on a live interface. Public keys and
// addresses may stand in arguments; preshared keys come from files.
func wgSet(iface string, peers []PeerChange, dir string) string {
	var b strings.Builder
	for i, p := range peers {
		if p.Remove {
			fmt.Fprintf(&b, "wg set %s peer %s remove\n", iface, shell.Quote(p.PublicKey.String()))
			continue
		}
		psk := "/dev/null" // takes a preshared key away
		if !p.Preshared.IsZero() {
			psk = dir + pskFile(i)
		}
		allowed := make([]string, len(p.AllowedIPs))
		for i, a := range p.AllowedIPs {
			allowed[i] = a.String()
		}
		fmt.Fprintf(&b, "wg set %s peer %s preshared-key %s allowed-ips %s\n",
			iface, shell.Quote(p.PublicKey.String()), psk, shell.Quote(strings.Join(allowed, ",")))
	}
	return b.String()
}

// Confirm keeps a change that was begun, records what was written, and looks
// again, in one round trip. *Refusal with code "late" means that the guard was
// faster and the old settings are back.
func Confirm(ctx context.Context, sh Shell, id string, w router.Written, want LookFor) (*router.Snapshot, error) {
	record, err := json.Marshal(w)
	if err != nil {
		return nil, err
	}
	vars := lookVars(want)
	vars["ID"] = id
	ps, err := run(ctx, sh, vars, "confirm && look", "looked", append(record, '\n'), "confirm.sh", "look.sh")
	if err != nil {
		return nil, err
	}
	return readSnapshot(ps)
}

// TakeBack takes a pending change back now; id "" means whatever is pending.
func TakeBack(ctx context.Context, sh Shell, id string) error {
	_, err := run(ctx, sh, env{"ID": id}, "takeback", "takenback", nil, "takeback.sh")
	return err
}

// An Order is a change of peers alone.
type Order struct {
	ID        string
	Network   *File // nil when the file is right and only the live interface is not
	Interface string
	Peers     []PeerChange
	Written   router.Written
}

// SetPeers writes the file and the live interface and looks again, in one round
// trip. Nobody else's session is touched. A cut between the two leaves the file
// right and the interface behind; the next plan sees that.
func SetPeers(ctx context.Context, sh Shell, o Order, want LookFor) (*router.Snapshot, error) {
	record, err := json.Marshal(o.Written)
	if err != nil {
		return nil, err
	}
	vars := lookVars(want)
	vars["ID"], vars["LOCKSECONDS"], vars["CHANGED"] = o.ID, seconds(lockAge), ""
	files := map[string][]byte{"written.json": append(record, '\n')}
	if o.Network != nil {
		addFiles(vars, files, []File{*o.Network})
	}
	for i, p := range o.Peers {
		if !p.Preshared.IsZero() {
			files[pskFile(i)] = []byte(p.Preshared.Reveal() + "\n")
		}
	}
	files["live.sh"] = []byte(wgSet(o.Interface, o.Peers, "./"))
	ps, err := run(ctx, sh, vars, "peers && look", "looked", archive(files), "begin.sh", "peers.sh", "look.sh")
	if err != nil {
		return nil, err
	}
	return readSnapshot(ps)
}

// ParseAllowed reads an allowed_ips value of a UCI file, which may be a list in
// one string; an address without a mask is a host.
func ParseAllowed(value string) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for _, w := range strings.Fields(value) {
		p, err := netip.ParsePrefix(w)
		if err != nil {
			a, err2 := netip.ParseAddr(w)
			if err2 != nil {
				return nil, err
			}
			p = netip.PrefixFrom(a, a.BitLen())
		}
		out = append(out, p)
	}
	return out, nil
}
