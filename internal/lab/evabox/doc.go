// Package evabox is an AVM device as far as flashing goes: a power switch, a
// cable that goes dead and comes back, the boot window, AVM's bootloader EVA with
// its UDP 5035 answer and its FTP dialogue, a flash, and what boots from it.
//
// It is independent of the client that it tests and shares no code with it:
// everything here comes from facts about devices (facts eva.md, cited as "facts
// eva N"; no AVM device was at hand). Where the facts do not know, an option
// chooses. State goes in, protocol comes out, faults are options.
//
// Background: EVA ("ADAM2" in its own words) listens for a few seconds after
// power-on on FTP's port. The first TCP connection stops the countdown. It is not
// quite FTP: GETENV answers with a bare line, CHECK ends with a preliminary 150,
// STOR is silent while the flash is being erased, and after RETR the data
// connection stays open.
package evabox
