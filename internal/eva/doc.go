// Package eva speaks with AVM's bootloader: finds it in the few seconds in which
// it listens, holds it, reads what box it is, sends what the plan for that box
// says, and starts it. It never writes anything that was not planned for the
// HWRevision it read itself, never touches the bootloader's own partition, never
// prints, and never chooses how to reach the box: the way out is a Net.
//
// Background: after power-on an AVM box looks for a computer for some five
// seconds. Its bootloader, EVA (which calls itself ADAM2), then serves FTP on port
// 21, or rather something near it: GETENV answers without a code, CHECK ends with
// 150, which FTP calls preliminary, STOR says nothing for minutes while the flash
// is erased, and a download's connection is never closed. Ordinary FTP programs
// trip over each of these. The first TCP connection stops the countdown: connect
// first, think later. On UDP port 5035 it answers whatever address it has, and
// takes the one that it is told.
//
// No AVM device was at hand. Everything is from captures and from programs that
// others wrote against real devices (cited as "facts eva N"), and is tested
// against the emulator lab/evabox only. A board says so (Board.Sure).
package eva
