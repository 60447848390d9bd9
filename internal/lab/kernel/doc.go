// Package kernel is the emulated home once more, this time with the operating
// system's own kernel: hosts are network namespaces, cables are veth pairs, the
// routers' rules are nftables rulesets printed from the firewall model, and the
// tunnel is wireguard-go on a tun device. What package lab says about packets is
// judged here by something that was not written for heimweg.
//
// It must never touch the network of the machine it runs on. Every namespace is
// anonymous: it has no name in the file system and lives as long as a file
// descriptor of this process, so nothing is left behind, however the process
// ends. Devices are made inside their namespace and go with it.
//
// # Background for a newcomer
//
// A network namespace is a second set of network devices, addresses, routes and
// firewall rules. It belongs to threads: a thread enters it, and sockets that it
// opens then stay there for good. So a host here is a descriptor, and [Host.Do]
// runs a function on a thread that has entered it. Making namespaces takes the
// rights of root, or a user namespace of one's own, in which one is root over
// nothing but what one makes ([Enter]).
package kernel
