// Package firmware fetches OpenWrt's release lists, images and packages, and asks
// its image builder. Nothing leaves this package as a File unless its SHA-256
// stands in a checksum list whose signature fits one of the keys that ship with
// the program (or that a person named), or unless it says by itself that nobody
// signed it: an image that the builder made on request is vouched for by TLS only.
//
// It must never write to a device, never hand out a file that it could not check,
// never trust a length or a name that a server gave, and never send anything about
// the household: the builder learns a board, a release and package names.
//
// Background (facts eva.md 5, openwrt.md 7). The download server has a directory
// for each release and target with the images, profiles.json (which image is
// what), and sha256sums with two signatures: sha256sums.sig by usign, OpenWrt's
// take on OpenBSD's signify (Ed25519), and sha256sums.asc by OpenPGP. The list of
// releases itself, .versions.json, is signed by nobody; so a list that names
// older releases than one seen before is reported, and a target's own signed
// files must say that they are the release that was asked for: all releases since
// 25.12 and those of 23.05 are signed with one key.
//
// The same layout in a folder, such as a USB stick or a Bundle, is as good as the
// server. Files come through the cache in either case, so that what was checked is
// what is used.
package firmware
