package eva

import "time"

// How long we wait for what, and how often we ask again: all of it is here (facts
// eva 1.10, 2.5, 2.6). Finding the box has no limit of its own; its deadline is
// the caller's context.
//
// A question every 10 ms is 100 small frames a second while we look, 67 kbit/s or
// a fifteenth of a percent of the slowest LAN port of such a box: fewer broadcasts
// than asking by ARP for the seven usual addresses every 50 ms, and far below
// what switches call a storm. A window opens once; what is lost until it is
// noticed is lost from it.
const (
	askEvery   = 10 * time.Millisecond  // UDP 5035; others ask once a second and lose half a second
	tryTCP     = 500 * time.Millisecond // one TCP try
	tryAlive   = 50 * time.Millisecond  // where something was just seen: a lost packet costs no more; then twice as long each time
	restTCP    = 100 * time.Millisecond // between two of them
	moveFirst  = 100                    // questions "where are you" before we also say "be there"
	moveEach   = 10                     // and then every so many
	onTheWay   = 100 * time.Millisecond // a request to move may still be on its way when the connection stands already
	staysIn    = time.Second            // whether the box is still where it was; it has just answered there
	moveAfter  = 2 * time.Millisecond   // after the question, so that whoever hears both answers first
	slintEach  = 10                     // so often we also ask for the newest boxes
	openEach   = 1000                   // so often we open firewalls: they forget after half a minute
	greetIn    = 3 * time.Second        // banner, and every ordinary reply
	settleData = 500 * time.Millisecond // silence that ends a RETR: the box does not close it
	eraseIn    = 300 * time.Second      // STOR to 150: a 4040 is silent for up to two minutes
	eraseTell  = 15 * time.Second       // while it is, say so this often
	eraseUsual = 2 * time.Minute        // what is normal
	dataIn     = 60 * time.Second       // without any progress
	storedIn   = 60 * time.Second       // data's end to 226
	checkIn    = 120 * time.Second      // CHECK; its real duration is not known
	startIn    = 15 * time.Second       // a RAM boot's last reply, which may never come

	tftpAgain = time.Second // repeat a TFTP block
	tftpTries = 10          // so often
)

// maxLine is the longest reply line that we take; the longest known is below 200.
const maxLine = 4 << 10
