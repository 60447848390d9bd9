package apply

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/heimweg/heimweg/internal/fault"
	"github.com/heimweg/heimweg/internal/key"
	"github.com/heimweg/heimweg/internal/openwrt"
	"github.com/heimweg/heimweg/internal/plan"
	"github.com/heimweg/heimweg/internal/uci"
)

func errorsAs[T error](err error, target *T) bool { return errors.As(err, target) }

// reloads maps a plan's ways to make things live to the router's commands. The
// restart that teaches the router a new protocol has happened by then, right
// after the installation and outside the window; a reload then brings the new
// interface up (observed on 23.05.6 and 24.10.8).
var reloads = map[plan.How]openwrt.Reload{
	plan.NetworkRestart: openwrt.ReloadNetwork,
	plan.NetworkReload:  openwrt.ReloadNetwork,
	plan.TunnelUp:       openwrt.RestartInterface,
	plan.TunnelRenew:    openwrt.RenewInterface,
	plan.FirewallReload: openwrt.ReloadFirewall,
	plan.DnsmasqReload:  openwrt.ReloadDNS,
	plan.OdhcpdReload:   openwrt.ReloadRA,
	plan.DropbearReload: openwrt.ReloadSSH,
	plan.DDNSRestart:    openwrt.RestartDDNS,
}

// baseReloads make live what a request puts in beside the plan.
var baseReloads = map[string][]openwrt.Reload{
	"network": {openwrt.ReloadNetwork}, "firewall": {openwrt.ReloadFirewall}, "dhcp": {openwrt.ReloadDNS},
	"dropbear": {openwrt.ReloadSSH}, "system": {openwrt.ReloadSystem}, "wireless": {openwrt.ReloadWifi},
}

// change computes the guarded change: files, reloads, live peers.
func (s *Session) change(p *plan.Plan, r Request) (openwrt.Change, map[string]*uci.Document, error) {
	docs, files, err := s.edit(p, r)
	if err != nil {
		return openwrt.Change{}, nil, err
	}
	c := openwrt.Change{
		ID: openwrt.NewID(), Files: files, Interface: p.Tunnel, Fw4: s.snap.Board.Fw4,
		Guard: openwrt.GuardShort, Wait: 20 * time.Second,
	}
	for _, st := range p.Only(plan.Activate) {
		cmd, ok := reloads[st.How]
		if !ok {
			return c, nil, fault.NewBug("no command for %q", st.How)
		}
		c.Reloads = append(c.Reloads, cmd)
		if cmd == openwrt.ReloadNetwork {
			c.Guard = openwrt.GuardLong
		}
	}
	for _, conf := range slices.Sorted(maps.Keys(r.Base)) {
		for _, cmd := range baseReloads[conf] {
			if !slices.Contains(c.Reloads, cmd) {
				c.Reloads = append(c.Reloads, cmd)
			}
		}
		if conf == "network" {
			c.Guard = openwrt.GuardLong
		}
	}
	if len(r.Base) > 0 {
		slices.Sort(c.Reloads) // networks before the firewall, as they are numbered
	}
	_, c.Up = docs["network"].Section(p.Tunnel)
	if len(p.Moves) > 0 {
		c.Wait, c.Delay = 0, time.Second // the connection will not survive; do not wait on it
	}
	c.Peers, err = live(p, docs)
	return c, docs, err
}

// edit turns the router's files into those that the plan wants.
func (s *Session) edit(p *plan.Plan, r Request) (map[string]*uci.Document, []openwrt.File, error) {
	secrets := plan.Secrets{Preshared: r.Preshared, DDNS: r.DDNSPassword}
	if p.Needs().Private && r.Private != nil {
		secrets.Private = *r.Private
	} else if p.Needs().Private {
		k, err := key.NewPrivate(r.Rand)
		if err != nil {
			return nil, nil, err
		}
		secrets.Private = k
	}
	before := s.based(r).Configs
	edited, err := p.Edit(before, secrets)
	var missing *plan.MissingSecretError
	if errors.As(err, &missing) {
		return nil, nil, lostSecret(missing)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("computing the new settings: %w", err)
	}
	docs := maps.Clone(before)
	maps.Copy(docs, edited)
	var files []openwrt.File
	write := p.Configs()
	for _, c := range slices.Sorted(maps.Keys(r.Base)) {
		if !slices.Contains(write, c) {
			write = append(write, c)
		}
	}
	for _, c := range write {
		files = append(files, openwrt.File{Config: c, OldHash: s.snap.Hashes[c], Text: uci.Hidden(string(docs[c].Text()))})
	}
	return docs, files, nil
}

// lostSecret: a peer stands in home.toml whose preshared key the router does not
// have; it was reset, or the peer was written in by hand.
func lostSecret(e *plan.MissingSecretError) error {
	if e.Option == "password" {
		return fault.New("ddns-password", "the password of the service that keeps the home's name is not known").
			Because("it is kept on the router only, and the router does not have it").
			Do("run heimweg apply at a terminal, or give it in the environment: HEIMWEG_DDNS_PASSWORD")
	}
	return fault.New("peer-key-lost", "the router does not know the preshared key of %q, and it is kept nowhere else", e.Peer).
		Because("the router was reset, or the device was written into home.toml by hand").
		Do("give the device a new configuration: heimweg peer renew %s", e.Peer)
}

// live are the changes of the live tunnel that the plan names, with the keys that
// stand in the new configuration.
func live(p *plan.Plan, after map[string]*uci.Document) ([]openwrt.PeerChange, error) {
	sync, err := p.Sync(after)
	if err != nil {
		return nil, err
	}
	var out []openwrt.PeerChange
	for _, y := range sync {
		out = append(out, openwrt.PeerChange{
			PublicKey: y.Key, Remove: y.Do == plan.PeerRemove,
			Preshared: y.Preshared, AllowedIPs: y.AllowedIPs,
		})
	}
	return out, nil
}

// peers changes peers alone: nobody's session is touched and nothing of it can
// cut the way to the router, so no window is opened.
func (s *Session) peers(ctx context.Context, p *plan.Plan, r Request) (err error) {
	docs, files, err := s.edit(p, r)
	if err != nil {
		return err
	}
	changes, err := live(p, docs)
	if err != nil {
		return err
	}
	end := s.tell.Stage("peers", "telling the router about its peers")
	defer func() { end(err, "the router knows its peers; nobody was cut off") }()
	o := openwrt.Order{ID: openwrt.NewID(), Interface: p.Tunnel, Peers: changes}
	if len(files) > 0 {
		o.Network = &files[0]
	}
	o.Written = s.record(p, docs, o.ID)
	err = s.do(ctx, func(ctx context.Context) error {
		snap, err := openwrt.SetPeers(ctx, s.conn, o, s.want)
		if err == nil {
			s.snap = snap
		}
		return err
	})
	if err != nil {
		return err
	}
	err, _ = s.unsettled(r)
	return err
}
