// Package isprouters knows the common ISP routers by name, and where in their
// settings a person opens a port by hand.
//
// It never asks anything: it is told plain facts (what a router calls itself, the
// title of its page, its address) and gives text. It never invents a menu: an entry
// says only what its source says, names that source, and says what it is not sure
// of. Where nothing was found it says less, and which words to look for.
//
// Background. Opening a port by hand is the same everywhere (protocol, port
// outside, device, port at the device), and called something else everywhere: port
// sharing, Portfreigabe, NAT/PAT, redirection de port. Menus move with every
// version, so the words to look for are worth as much as the path. The names in a
// menu are in the router's language, whatever the reader speaks: a Livebox shows
// French ones. IPv6 has no port mapping; there the router's firewall has to let the
// port through to the home router's own address.
package isprouters
