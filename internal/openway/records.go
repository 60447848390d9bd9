package openway

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
	"time"

	"github.com/heimweg/heimweg/internal/blueprint"
	"github.com/heimweg/heimweg/internal/store"
	"github.com/heimweg/heimweg/internal/subnet"
	"github.com/heimweg/heimweg/internal/uplink"
)

// recordFormat is the number of the file's form.
const recordFormat = 1

// Records are what heimweg opened at ISP routers, so that it can be told from what
// others set, renewed, and taken back. It holds no password.
type Records struct {
	path   string
	Format int      `json:"format"`
	Opened []record `json:"opened"`
}

// A record is one mapping or IPv6 opening of ours.
type record struct {
	Gateway netip.Addr     `json:"gateway"`
	Router  string         `json:"router,omitempty"` // what it calls itself
	Mapping uplink.Mapping `json:"mapping"`
	Hole    uplink.Pinhole `json:"hole,omitzero"`
	At      time.Time      `json:"at"`
}

// ReadRecords reads the file at path; one that is not there is empty. A file that
// cannot be understood is an error: what it held would be forgotten by writing.
func ReadRecords(path string) (*Records, error) {
	r := &Records{path: path, Format: recordFormat}
	text, err := store.Read(path)
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(text, r); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if r.Format != recordFormat {
		return nil, fmt.Errorf("%s has the format %d; this heimweg knows %d", path, r.Format, recordFormat)
	}
	return r, nil
}

func (r *Records) save() error {
	if r == nil || r.path == "" {
		return nil
	}
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return store.WriteFile(r.path, append(text, '\n'), 0o600)
}

// holeOnly reports whether only IPv6 was opened at an ISP router.
func (r *Records) holeOnly(gateway netip.Addr) bool {
	return r != nil && slices.ContainsFunc(r.Opened, func(o record) bool { return o.Gateway == gateway && !o.Mapping.To.IsValid() })
}

// same: one port of one target.
func same(a, b uplink.Mapping) bool {
	return a.Proto == b.Proto && a.External == b.External && a.To == b.To
}

func (r *Records) has(gateway netip.Addr, m uplink.Mapping) bool {
	return r != nil && slices.ContainsFunc(r.Opened, func(o record) bool { return o.Gateway == gateway && same(o.Mapping, m) })
}

// others are our mappings at an ISP router, without the given one.
func (r *Records) others(gateway netip.Addr, but uplink.Mapping) []uplink.Mapping {
	var out []uplink.Mapping
	if r == nil {
		return nil
	}
	for _, o := range r.Opened {
		if o.Gateway == gateway && o.Mapping.To.IsValid() && !same(o.Mapping, but) {
			out = append(out, o.Mapping)
		}
	}
	return out
}

// hole finds our opening for IPv6; with a zero to, any one.
func (r *Records) hole(gateway netip.Addr, to netip.AddrPort) (uplink.Pinhole, bool) {
	if r == nil {
		return uplink.Pinhole{}, false
	}
	for _, o := range r.Opened {
		if o.Gateway == gateway && o.Hole.To.IsValid() && (o.Hole.To == to || !to.IsValid()) {
			return o.Hole, true
		}
	}
	return uplink.Pinhole{}, false
}

func (r *Records) drop(gateway netip.Addr, m uplink.Mapping) {
	if r != nil {
		r.Opened = slices.DeleteFunc(r.Opened, func(o record) bool { return o.Gateway == gateway && same(o.Mapping, m) })
	}
}

func (r *Records) dropHole(gateway netip.Addr) {
	if r == nil {
		return
	}
	r.drop(gateway, uplink.Mapping{}) // nothing is left of one that was IPv6 only
	for i := range r.Opened {
		if r.Opened[i].Gateway == gateway {
			r.Opened[i].Hole = uplink.Pinhole{}
		}
	}
}

// keep notes what was opened, in place of an older note about the same.
func (r *Records) keep(gateway netip.Addr, f Found, m uplink.Mapping, hole uplink.Pinhole) error {
	if r == nil {
		return nil
	}
	r.drop(gateway, m)
	r.drop(gateway, uplink.Mapping{})
	r.Opened = append(r.Opened, record{Gateway: gateway, Router: f.Model, Mapping: m, Hole: hole, At: m.Asked})
	return r.save()
}

// nonce is what PCP knows our mapping by: that of the last time, else a new one.
func (r *Records) nonce(gateway netip.Addr, w blueprint.Mapping) [12]byte {
	if r != nil {
		for _, o := range r.Opened {
			if m := o.Mapping; o.Gateway == gateway && m.Proto == w.Proto && m.External == w.External && m.Nonce != [12]byte{} {
				return m.Nonce
			}
		}
	}
	var n [12]byte
	rand.Read(n[:])
	return n
}

// Public is the public address that an ISP router told when we opened a port
// there; invalid when it told none, or none that people outside can call.
func (r *Records) Public(gateway netip.Addr) netip.Addr {
	if r == nil || !gateway.IsValid() {
		return netip.Addr{}
	}
	for _, o := range slices.Backward(r.Opened) {
		if a := o.Mapping.Public; o.Gateway == gateway && a.IsValid() {
			if subnet.IsPublic(a) {
				return a
			}
			break
		}
	}
	return netip.Addr{}
}

// Lost finds what we opened at an ISP router for a port outside and what its list, by
// UPnP, does not show any more: when it was opened, and when the time that it was
// granted for was over, zero as long as it is not. What was opened by another protocol
// need not stand in that list; it is lost when its time is over.
func (r *Records) Lost(gateway netip.Addr, proto string, external uint16, list []uplink.Mapping, now time.Time) (opened, ended time.Time) {
	if r == nil || slices.ContainsFunc(list, func(m uplink.Mapping) bool { return m.Proto == proto && m.External == external }) {
		return opened, ended
	}
	for _, m := range r.others(gateway, uplink.Mapping{}) {
		if m.Proto != proto || m.External != external {
			continue
		}
		var over time.Time
		if end := m.Asked.Add(m.Lease); m.Lease > 0 && now.After(end) {
			over = end
		}
		if m.Protocol == uplink.UPnP || !over.IsZero() {
			opened, ended = m.Asked, over
		}
	}
	return opened, ended
}
