package hostnet

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// A Kind says what is behind the name of a network card.
type Kind string

// The kinds of cards.
const (
	Wired   Kind = "wired"
	WiFi    Kind = "Wi-Fi"
	VPN     Kind = "VPN or tunnel"
	Virtual Kind = "virtual" // bridges, veth pairs, cards of virtual machines
	Unknown Kind = "of a kind that cannot be told"
)

// A Link is the state of the cable. Not known is a value: a card that is switched
// off does not tell, and some systems never do.
type Link string

// The states of a cable.
const (
	LinkUp      Link = "up"
	LinkDown    Link = "down"
	LinkUnknown Link = "not known"
)

// A Card is one of this computer's network cards.
type Card struct {
	Name  string // the system's: "enp3s0", "en5", "Ethernet"
	Index int    // the system's number for it
	MAC   MAC    // zero when it has none
	Kind  Kind
	On    bool // switched on by the system
	Link  Link
	MTU   int
	Addrs []netip.Prefix // its addresses with their networks
}

// A MAC is an Ethernet address.
type MAC [6]byte

func (m MAC) String() string {
	return fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4], m[5])
}

// Has reports whether an address is one of the card's own.
func (c Card) Has(a netip.Addr) bool {
	return slices.ContainsFunc(c.Addrs, func(p netip.Prefix) bool { return p.Addr() == a })
}

// Cards lists this computer's network cards by name, without the loopback.
func Cards(ctx context.Context) ([]Card, error) {
	list, err := cards(ctx)
	if err != nil {
		return nil, fmt.Errorf("this computer's network cards: %w", err)
	}
	slices.SortFunc(list, func(a, b Card) int { return cmp.Compare(a.Name, b.Name) })
	return list, nil
}

// Choose picks the card that a box is plugged into. Without a wanted name there
// must be exactly one that can be meant: a wired one, or one of a kind that
// cannot be told. A cable that is plugged in already is no reason to prefer a
// card: it may be the one to the ISP router. Errors: *NoCardError,
// *SeveralCardsError, *NotACableError.
func Choose(list []Card, wanted string) (Card, error) {
	if wanted != "" {
		i := slices.IndexFunc(list, func(c Card) bool { return strings.EqualFold(c.Name, wanted) })
		switch {
		case i < 0:
			return Card{}, &NoCardError{Wanted: wanted, Cards: list}
		case list[i].Kind == WiFi || list[i].Kind == VPN || list[i].MAC == MAC{}:
			return Card{}, &NotACableError{Card: list[i]}
		}
		return list[i], nil
	}
	could := meant(list, Wired)
	if len(could) == 0 {
		could = meant(list, Unknown)
	}
	switch len(could) {
	case 0:
		return Card{}, &NoCardError{Cards: list}
	case 1:
		return could[0], nil
	}
	return Card{}, &SeveralCardsError{Cards: could}
}

func meant(list []Card, k Kind) []Card {
	var out []Card
	for _, c := range list {
		if c.Kind == k && c.MAC != (MAC{}) {
			out = append(out, c)
		}
	}
	return out
}

// A NoCardError says that no card has the wanted name or, when none was wanted,
// that this computer has no wired one.
type NoCardError struct {
	Wanted string
	Cards  []Card // what there is
}

func (e *NoCardError) Error() string {
	if e.Wanted != "" {
		return fmt.Sprintf("this computer has no network card %s, only %s", e.Wanted, Names(e.Cards))
	}
	return fmt.Sprintf("this computer has no wired network card, only %s", Names(e.Cards))
}

// A SeveralCardsError says that more than one card could be meant; a person has
// to choose.
type SeveralCardsError struct{ Cards []Card }

func (e *SeveralCardsError) Error() string {
	return fmt.Sprintf("%d network cards could be meant: %s", len(e.Cards), Names(e.Cards))
}

// A NotACableError says that no cable can be plugged into the chosen card.
type NotACableError struct{ Card Card }

func (e *NotACableError) Error() string {
	return fmt.Sprintf("%s is %s; a box needs a cable", e.Card.Name, e.Card.Kind)
}

// Names lists cards for a sentence: "enp3s0 (wired), wlan0 (Wi-Fi)".
func Names(list []Card) string {
	var out []string
	for _, c := range list {
		out = append(out, fmt.Sprintf("%s (%s)", c.Name, c.Kind))
	}
	if len(out) == 0 {
		return "none at all"
	}
	return strings.Join(out, ", ")
}
