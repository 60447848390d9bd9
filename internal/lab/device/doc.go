// Package device is one AVM box in its case: a power switch, the bootloader with
// its boot window, a flash, and whatever starts from it. What starts is decided by
// the bytes that were really written: FRITZ!OS as long as nobody wrote anything, an
// emulated OpenWrt of the release that the image names, a system in memory, U-Boot
// that fetches its next stage, or nothing but a red light. The bootloader itself
// nothing here can hurt, so that every wrong image leaves a box to try again.
//
// It joins lab/evabox (the bootloader) and lab/owrt (the router) on one link, and
// shares no code with what flashes it. Layouts and boot chains: facts eva 3 and 4.
//
// Background: a 4040 starts U-Boot from flash, and U-Boot the system behind it. The
// boxes with one NOR image start its kernel directly. The boxes with NAND flash
// cannot be written by their bootloader: it starts a system in memory, and that
// system writes the flash. On those with an IPQ4019 the step between is a U-Boot
// in memory, which fetches the system by TFTP.
package device
