package hostnet

import "net/netip"

// Advice is what a person has to do to give a card an address.
type Advice struct {
	System  string   // "Windows", "macOS", "Linux"
	Menu    []string // the way through the system's settings
	Command []string // or these lines in a terminal, with what rights
	Undo    []string // and these afterwards
}

// Advise says how to give a card an address on a system (runtime.GOOS's words).
func Advise(system string, c Card, address netip.Prefix) Advice {
	return Advice{}
}
