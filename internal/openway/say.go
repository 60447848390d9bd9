package openway

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/heimweg/heimweg/internal/isprouters"
	"github.com/heimweg/heimweg/internal/subnet"
	"github.com/heimweg/heimweg/internal/uplink"
)

func (w *Way) recognise() {
	w.router, w.how = isprouters.Recognise(isprouters.Seen{Maker: w.Found.Maker, Model: w.Found.Model, Gateway: w.Gateway})
}

// Name is what people call the ISP router: its model when it says so.
func (w *Way) Name() string {
	switch {
	case w.Found.Model != "":
		return w.Found.Model
	case w.how == isprouters.Named:
		return w.router.Name
	}
	return "the ISP router"
}

// What is the mapping in short: "UDP 51820".
func (w *Way) What() string {
	return fmt.Sprintf("%s %d", strings.ToUpper(w.Want.Proto), w.Want.External)
}

// says is what the ISP router answered.
func (w *Way) says() string {
	switch w.State {
	case Open:
		return w.What() + " leads to the home router already"
	case Taken:
		return w.What() + " leads to somebody else"
	}
	var list []string
	for _, a := range w.Found.Answers {
		list = append(list, string(a.Protocol))
	}
	return "programs may ask it to open ports (" + strings.Join(list, ", ") + ")"
}

// Opened says what was opened and for how long: "UPnP: UDP 51820 → 192.168.2.253,
// until we end it".
func (w *Way) Opened() string {
	by := ""
	if w.Mapping.Protocol != "" {
		by = " (" + string(w.Mapping.Protocol) + ")"
	}
	return fmt.Sprintf("ISP router%s: %s → %s, %s", by, w.What(), w.Want.To, lasts(w.Mapping))
}

// lasts says how long a mapping stands.
func lasts(m uplink.Mapping) string {
	if m.Lease == 0 {
		return "until somebody ends it"
	}
	return "until " + m.Asked.Add(m.Lease).Format("Mon 2 Jan 15:04")
}

// Outlook says what will become of the mapping, one sentence a line: what a
// restart of the ISP router does to it, and who renews it.
func (w *Way) Outlook() []string {
	if w.State != Open {
		return w.outlook6()
	}
	if w.Fixed {
		return []string{"a person set this mapping; it stays as it is, also when the ISP router restarts"}
	}
	var out []string
	switch {
	case w.Mapping.Protocol == uplink.TR064:
		out = append(out, "it stands in the FRITZ!Box's own list of port sharings and stays there until somebody takes it out")
	case w.Mapping.Lease == 0:
		out = append(out, "when the ISP router restarts it may forget this; heimweg up asks again")
	default:
		out = append(out, fmt.Sprintf("it ends %s unless it is renewed, or when the ISP router restarts; heimweg up renews it",
			w.Mapping.Asked.Add(w.Mapping.Lease).Format("Mon 2 Jan 15:04")))
	}
	if w.Mapping.Protocol != uplink.TR064 {
		out = append(out, "a mapping set by hand at the ISP router stays: heimweg up --by-hand tells how")
	}
	return append(out, w.outlook6()...)
}

func (w *Way) outlook6() []string {
	if !w.Hole.To.IsValid() {
		return nil
	}
	return []string{fmt.Sprintf("for IPv6 it lets %s through to %s, until %s; heimweg up renews it",
		w.What(), w.Hole.To.Addr(), w.Hole.Asked.Add(w.Hole.Lease).Format("Mon 2 Jan 15:04"))}
}

// Beyond says why the mapping alone does not make home reachable, "" when nothing
// is known against it: an ISP router without a public address is behind another
// NAT itself.
func (w *Way) Beyond() string {
	if w.State == NotNeeded || !w.Public.IsValid() || subnet.IsPublic(w.Public) {
		return ""
	}
	return fmt.Sprintf("the ISP router's own address outside, %s, is %s: whatever it passes on, nobody outside gets as far as to it",
		w.Public, subnet.WhyNotPublic(w.Public))
}

// Conflict says who has the port, and what to do; nil with any other State.
func (w *Way) Conflict() []string {
	if w.State != Taken {
		return nil
	}
	at := "another device"
	if w.Holder.To.IsValid() {
		at = w.Holder.To.String()
	}
	if w.Holder.Description != "" {
		at += fmt.Sprintf(" (%q)", w.Holder.Description)
	}
	if w.Earlier {
		return []string{
			fmt.Sprintf("%s still leads to %s, an address that the home router had before", w.What(), at),
			"take that entry out at the ISP router and run heimweg up again; let it always give the home router the same address",
		}
	}
	return []string{
		fmt.Sprintf("%s leads to %s already; heimweg leaves that alone", w.What(), at),
		"take that entry out at the ISP router, or let your devices call another port: endpoint-port under [tunnel] in home.toml",
	}
}

func (w *Way) removedText(hole bool) string {
	if len(w.Removed) == 0 && !hole {
		return "nothing of ours was open"
	}
	var list []string
	if hole {
		list = []string{"IPv6"}
	}
	for _, m := range w.Removed {
		list = append(list, fmt.Sprintf("%s %d → %s", strings.ToUpper(m.Proto), m.External, m.To.Addr()))
	}
	return "taken back: " + strings.Join(list, ", ")
}

// Guide tells a person how to open the port by hand. device is the home router's
// name in lists; only6 says that nobody can come in over IPv4.
func (w *Way) Guide(device string, only6 bool, l isprouters.Language) isprouters.Guide {
	return w.router.Guide(isprouters.Want{
		Proto: cmp.Or(w.Want.Proto, "udp"), External: w.Want.External, Internal: w.Want.Internal,
		To: w.Want.To, To6: w.To6, Device: device, Only6: only6,
	}, w.how, w.Gateway, l)
}

// Permit tells where a person lets programs open ports there, "" when not known.
func (w *Way) Permit(l isprouters.Language) string { return w.router.Permit(l) }
