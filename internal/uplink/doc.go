// Package uplink asks the ISP router: to send a UDP port on to the home router,
// what it sends where already, what its address outside is, and to take a mapping
// back. It speaks UPnP IGD (versions 1 and 2), PCP, NAT-PMP and AVM's TR-064.
//
// It never decides whether a port shall be opened, never overwrites a mapping of
// somebody else, never prints, and never chooses how to reach the ISP router: the
// ways out are [Way]s. A FRITZ!Box password is a [Login], which refuses to print.
//
// # Background for a newcomer
//
// Behind the ISP router's NAT, somebody outside can only reach the home router
// when the ISP router was told "UDP 51820 goes to 192.168.2.253". Programs may
// tell it by one of three languages. UPnP IGD: find a description by a datagram
// to port 1900 (SSDP), fetch it by HTTP, call actions by SOAP. NAT-PMP (RFC 6886)
// and its successor PCP (RFC 6887): one datagram to port 5351, and back. In the
// latter two, mappings end by themselves and an "epoch" counts the seconds since
// the ISP router forgot everything. AVM's FRITZ!Box has a fourth one, TR-064,
// that wants a password.
//
// Most ISP routers let a host open ports only for itself, so the request must come
// from the home router. That is so in two ways: a request from a computer behind
// the home router carries the home router's address, because the home router
// masquerades (facts deps 8, measured with miniupnpd); and what runs over TCP can
// go through an SSH channel of the home router. IPv6 is not masqueraded: a
// pinhole must be asked for through that channel.
//
// An answer "mapped" proves little: some ISP routers say so and forward nothing.
// Only a packet from outside proves it; that is the business of others.
package uplink
