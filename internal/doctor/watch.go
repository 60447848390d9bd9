package doctor

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/heimweg/heimweg/internal/home"
	"github.com/heimweg/heimweg/internal/key"
)

// A Glimpse is what the home router counted at one moment, while somebody tries to
// come home with a real device.
type Glimpse struct {
	At      time.Time   // by the router's clock
	Arrived Fact[int64] // packets that came in by the tunnel's rule
	Devices map[key.Public]Heard
}

// Heard is one device in a glimpse.
type Heard struct {
	Endpoint       netip.AddrPort
	Received, Sent int64
	Handshake      time.Time // zero: never since the tunnel was made
}

// Stage is how far a device has come.
type Stage string

// The stages, in the order in which a device passes them.
const (
	Waiting   Stage = "waiting"   // nothing has come yet
	Arriving  Stage = "arriving"  // packets come in at the WAN side
	Rejected  Stage = "rejected"  // they come again and again, and no key fits
	Beginning Stage = "beginning" // the tunnel took the device's handshake, it does not take the answer
	Shaken    Stage = "handshake" // the handshake is done
	Home      Stage = "home"      // data came through
)

// How much a device that is home has sent since watching began: a handshake is 148
// bytes and the keepalive that ends it 32 (wireguard.com/protocol).
const (
	initiation = 148
	keepalive  = 32
)

// sessionTime is how long a handshake surely stays valid (WireGuard, messages.h: keys
// are rejected after 180 s).
const sessionTime = 180 * time.Second

// A Step is what a person is told while a device tries to come home.
type Step struct {
	Stage  Stage  `json:"stage"`
	Device string `json:"device,omitempty"` // "" while nobody knows who it is
	Says   string `json:"says"`
	Next   string `json:"next,omitempty"`
	// Packets have come in at the WAN side since watching began.
	Packets int64 `json:"packets"`
}

// Watching follows a device home. The zero value is ready.
type Watching struct {
	first *Glimpse
	last  Step
}

// See takes the next glimpse and tells how far the device that comes furthest has
// come. New is false when that is what was said before.
func (w *Watching) See(h home.Home, g Glimpse) (step Step, isNew bool) {
	if w.first == nil || g.Arrived.Known && w.first.Arrived.Known && g.Arrived.Value < w.first.Arrived.Value {
		w.first = &g // the firewall was loaded anew: its counters begin at zero
	}
	step = w.furthest(h, g)
	if g.Arrived.Known && w.first.Arrived.Known {
		step.Packets = g.Arrived.Value - w.first.Arrived.Value
	}
	if step.Stage == "" {
		step.Stage, step.Says, step.Next = outsideOf(step.Packets, g.Arrived.Known)
	}
	isNew = step.Stage != w.last.Stage || step.Device != w.last.Device
	w.last = step
	return step, isNew
}

// outsideOf is what can be said when the tunnel has heard nobody.
func outsideOf(packets int64, counted bool) (Stage, string, string) {
	switch {
	case !counted:
		return Waiting, "waiting; the tunnel has heard nobody, and what comes before it cannot be counted", "switch the tunnel on at the device, with its Wi-Fi off"
	case packets == 0:
		return Waiting, "waiting; nothing has come to the home router yet", "switch the tunnel on at the device, with its Wi-Fi off; if nothing comes then, the ISP router sends nothing on"
	case packets < 2:
		return Arriving, "a packet has come through the ISP router to the home router", ""
	}
	return Rejected, "the device's packets reach the home router, but its key is unknown: it still has an old configuration", "heimweg peer renew NAME, and scan the new code"
}

// furthest is the device that has come furthest since watching began.
func (w *Watching) furthest(h home.Home, g Glimpse) (best Step) {
	rank := map[Stage]int{"": 0, Beginning: 1, Shaken: 2, Home: 3}
	for _, d := range h.Peers {
		is, there := g.Devices[d.PublicKey]
		if !there {
			continue
		}
		if s := stageOf(d.Name, w.first.Devices[d.PublicKey], is, g.At); rank[s.Stage] > rank[best.Stage] {
			best = s
		}
	}
	return best
}

func stageOf(name string, was, is Heard, now time.Time) Step {
	came := is.Received - was.Received
	if is.Received < was.Received { // the tunnel was made anew
		came, was = is.Received, Heard{}
	}
	from := ""
	if is.Endpoint.IsValid() {
		from = fmt.Sprintf(", from %s", is.Endpoint.Addr())
	}
	shaken := is.Handshake.After(was.Handshake) || !is.Handshake.IsZero() && now.Sub(is.Handshake) < sessionTime
	switch {
	case came <= 0:
		return Step{}
	case shaken && came > initiation+keepalive:
		return Step{Stage: Home, Device: name, Says: name + " is home: data comes through the tunnel" + from}
	case shaken:
		return Step{Stage: Shaken, Device: name, Says: fmt.Sprintf("handshake with %s at %s%s", name, is.Handshake.UTC().Format("15:04:05"), from), Next: "open something at home on the device"}
	}
	return Step{Stage: Beginning, Device: name, Says: name + " knocks, and its key fits" + from + "; it has not taken the answer yet",
		Next: "if it stays so: heimweg peer renew " + name}
}

// Shown is the step as a person sees it: without public addresses, unless in full.
func (s Step) Shown(h home.Home, full bool) Step {
	if full {
		return s
	}
	r := Report{Findings: []Finding{{Headline: s.Says}}}.Redacted(Facts{Home: h})
	s.Says = r.Findings[0].Headline
	return s
}
