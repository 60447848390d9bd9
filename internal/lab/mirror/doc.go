// Package mirror is an emulated OpenWrt download server: the release lists, images,
// checksum lists, signatures and package feeds of a few releases in the official
// layout, and the image builder (attended sysupgrade server) beside it. It is an
// http.Handler, so it can be mounted on a listener of the emulated home, on
// loopback, or behind a RoundTripper without any network.
//
// Its images come from package imagetest: small, whole, laid out like the real
// ones, so that the emulated boot loader starts them. Its keys are made when it
// is made; nobody else trusts them. Faults are part of it: see Break.
//
// It must never import package firmware, which it judges; both take the layout
// from the public server (facts eva.md 5.1 and 5.3, openwrt.md 7) and from the
// public sources named where they are used.
package mirror
