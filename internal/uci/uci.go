// Package uci reads, changes and writes the configuration files of OpenWrt
// (UCI, the Unified Configuration Interface): files in /etc/config like
//
//	config interface 'lan'
//		option proto 'static'
//		list ipaddr '192.168.1.1/24'
//
// A Document keeps the text it was read from. What is changed through it is
// written in UCI's canonical form; everything else stays as it was: comments,
// quoting, order, line ends. (The router's own uci program is less careful: its
// next commit rewrites the whole file.) Sections, options and lists mean what
// they mean to the real program, down to its habits: the last option of a name
// wins, a list behind an option swallows it, sections of one name are one
// section, and unnamed ones get names that tell their place in the file.
//
// The package must never show a secret that it has read: values of options
// that hold secrets are hidden (Value), and a Document prints as its name only.
// The ways to secrets are Reveal, Section.Get, Section.Values, Document.Text and Print.
//
// Facts: OpenWrt sections 4.1 to 4.7, checked against the uci program built
// from its sources of December 2025.
package uci
