package flash

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/heimweg/heimweg/internal/eva"
	"github.com/heimweg/heimweg/internal/event"
	"github.com/heimweg/heimweg/internal/fault"
	"github.com/heimweg/heimweg/internal/image"
	"github.com/heimweg/heimweg/internal/openwrt"
)

// Find waits for a box on the cable, holds its bootloader, reads what box it is,
// and gets the files for it together: given ones are judged again, the rest is
// fetched. A missed boot window is not the end; the next power-on counts. A box
// that runs the RAM system of an earlier run is found, too.
//
// The box is held and unchanged afterwards. After an error it was started as it
// was, where it could be.
func Find(ctx context.Context, o Options) (*Session, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	s := &Session{o: o, cable: o.Cable, near: slices.Clone(ours)}
	if err := s.find(ctx); err != nil {
		s.Leave(ctx)
		s.Close()
		return nil, s.explain(err)
	}
	return s, nil
}

func (s *Session) find(ctx context.Context) error {
	if err := s.use(); err != nil {
		return err
	}
	h := newHunt(s)
	err := h.run(ctx)
	if err != nil {
		return err
	}
	if s.ram != nil {
		return s.resume(ctx)
	}
	if err := s.identify(); err != nil {
		return err
	}
	if err := s.gather(ctx); err != nil {
		return err
	}
	files, _ := s.forLoader()
	s.plan, err = eva.NewPlan(s.env, files...)
	return err
}

// identify takes from the environment which boards this box can be.
func (s *Session) identify() error {
	known, err := eva.BoardOf(s.env)
	if err != nil {
		return err
	}
	hw, err := strconv.Atoi(s.env.HWRevision())
	if err != nil {
		return &eva.UnknownBoardError{HWRevision: s.env.HWRevision()}
	}
	s.known, s.hw, s.boards = known, hw, image.BoardsOf(hw)
	if len(s.boards) == 0 {
		return &eva.UnknownBoardError{HWRevision: s.env.HWRevision(), Name: known.Name}
	}
	s.method = s.boards[0].Method
	if s.o.Board == "" {
		return nil
	}
	said, err := Named(s.o.Board)
	if err != nil {
		return err
	}
	both := slices.DeleteFunc(slices.Clone(s.boards), func(b image.Board) bool {
		return !slices.ContainsFunc(said, func(x image.Board) bool { return x.Name == b.Name })
	})
	if len(both) == 0 {
		return fault.New("other-box", "this box is a %s, not a %s", s.boards[0].Model, said[0].Model).
			Saw("the bootloader says HWRevision %d", hw).Do("leave --board away, or plug in the other box")
	}
	s.boards = both
	return nil
}

// resume goes on where an earlier run was cut off: the system in RAM answers.
func (s *Session) resume(ctx context.Context) error {
	b, ok := image.BoardNamed(s.ram.Board.Name)
	if !ok {
		return fault.New("ram-other", "a system runs in RAM on the box, but it is for none of the boards that we know").
			Saw("it says %s", s.ram.Board.Name).Do("switch the box off and on, and run the same command again")
	}
	s.boards, s.method = []image.Board{b}, b.Method
	if len(b.HWRevisions) == 1 {
		s.hw = b.HWRevisions[0]
	}
	// A start from RAM works with the image of either NAND; which one it is decides
	// the kernel's log, as it would have.
	if len(b.HWRevisions) > 0 {
		s.boards = image.BoardsOf(b.HWRevisions[0])
	}
	for _, k := range eva.BoardFor(b.Profile) {
		s.known = k
	}
	if s.method == image.FromUBoot && s.hw == 0 {
		return fault.New("ram-which", "the box runs a system in RAM, but whether it is a 7520 or a 7530 only its bootloader tells").
			Because("they need different U-Boots").Do("switch the box off, run the same command again, and switch it on when told")
	}
	return s.gather(ctx, RAMSystem)
}

// A hunt looks for the box.
type hunt struct {
	s      *Session
	tell   event.Tell
	began  time.Time
	links  chan linkNews
	sights chan eva.Sight
	logins chan login
	wg     sync.WaitGroup

	up, known bool      // the cable, and whether anybody tells
	upAt      time.Time // when it came up
	hint      *time.Timer
	hints     int
	asked     map[netip.Addr]bool // who was asked by SSH already
	locked    netip.Addr          // a bootloader that answers and lets nobody in
	seen      netip.Addr          // where this life's bootloader was seen, as told
	dropped   int                 // boxes that were held and lost before they said what they are
}

type linkNews struct {
	up    bool
	quiet bool // nothing was heard so far: a cable that is up says so at once
	err   error
}

// A login is what answered by SSH.
type login struct {
	at    netip.Addr
	state openwrt.BootState
	key   ssh.PublicKey // the host's
	err   error
}

func newHunt(s *Session) *hunt {
	return &hunt{s: s, tell: s.o.Tell, began: time.Now(), links: make(chan linkNews), sights: make(chan eva.Sight, 64), logins: make(chan login),
		asked: map[netip.Addr]bool{}}
}

var errWaited = errors.New("waited long enough")

// run looks until a box is held and has said what it is, or a RAM system answers;
// the session has it then.
func (h *hunt) run(ctx context.Context) error {
	if h.s.o.Wait > 0 {
		var stop context.CancelFunc
		ctx, stop = context.WithTimeoutCause(ctx, h.s.o.Wait, errWaited)
		defer stop()
	}
	inner, stop := context.WithCancel(ctx)
	defer h.wg.Wait()
	defer stop()
	h.wg.Go(func() { h.watchLink(inner) })
	dead := time.AfterFunc(linkTell, func() {
		select {
		case h.links <- linkNews{quiet: true}:
		case <-inner.Done():
		}
	})
	defer dead.Stop()
	h.hint = time.NewTimer(hintFirst)
	defer h.hint.Stop()
	for {
		found, err := h.search(inner)
		if err != nil || found {
			return err
		}
	}
}

// watchLink reports every change of the cable.
func (h *hunt) watchLink(ctx context.Context) {
	for up := true; ; up = !up {
		err := h.s.cable.WaitLink(ctx, up)
		if ctx.Err() != nil {
			return
		}
		select {
		case h.links <- linkNews{up: up, err: err}:
		case <-ctx.Done():
			return
		}
		if err != nil {
			return
		}
	}
}

// search is one search by package eva. It ends without a result when the cable
// went down, so that what is seen at the next power-on is told again.
func (h *hunt) search(ctx context.Context) (found bool, err error) {
	ctx, stop := context.WithCancel(ctx)
	results := make(chan result, 1)
	h.wg.Go(func() {
		box, err := eva.Find(ctx, h.s.cable, eva.Ask{Near: h.networks(), Want: eva.Home, Look: []eva.Look{h.look},
			Tell: func(x eva.Sight) {
				select {
				case h.sights <- x:
				case <-ctx.Done():
				}
			}})
		results <- result{box, err}
	})
	// Whatever ends this search: a box that it still found is not forgotten.
	finish := func() (bool, error) {
		stop()
		r := <-results
		if r.box != nil {
			return h.held(context.WithoutCancel(ctx), r.box)
		}
		return false, nil
	}
	defer stop()
	for {
		select {
		case r := <-results:
			if r.err != nil {
				return false, h.failed(r.err)
			}
			h.sightsLeft()
			return h.held(ctx, r.box)
		case x := <-h.sights:
			again, err := h.saw(ctx, x)
			if err != nil {
				stop()
				(<-results).drop()
				return false, err
			}
			if again {
				return finish()
			}
		case l := <-h.links:
			if h.link(l) {
				return finish()
			}
		case l := <-h.logins:
			resumes, err := h.loggedIn(l)
			if err != nil || resumes {
				stop()
				(<-results).drop()
				return resumes, err
			}
		case <-h.hint.C:
			h.giveHint()
		}
	}
}

// A result is what package eva found.
type result struct {
	box *eva.Box
	err error
}

// drop lets a box go that is not needed: it starts as it was.
func (r result) drop() {
	if r.box == nil {
		return
	}
	ctx, stop := context.WithTimeout(context.Background(), loginTime)
	defer stop()
	_ = r.box.Reboot(ctx) // one that is gone needs nothing
}

func (h *hunt) networks() []netip.Prefix {
	var out []netip.Prefix
	for _, p := range h.s.near {
		out = append(out, p.Masked())
	}
	return out
}

// look is the cable's own way of looking, where it has one.
func (h *hunt) look(ctx context.Context, seen func(netip.Addr)) error {
	if err := h.s.cable.Look(ctx, seen); err != nil {
		<-ctx.Done() // the other ways are enough
	}
	return nil
}

// held asks a box that was just caught what it is.
func (h *hunt) held(ctx context.Context, box *eva.Box) (bool, error) {
	h.sighted(box.Addr()) // a connection may be there before any answer
	h.tell.Note(WayStage, "held. No hurry any more.")
	env, err := box.Environment(ctx)
	var lost *eva.LostError
	if errors.As(err, &lost) && ctx.Err() == nil && h.dropped < 3 {
		h.dropped++
		box.Close()
		h.tell.Note("search", "it was gone again before it said what it is; switch the box off, wait 5 s, and on")
		return false, nil
	}
	if err != nil {
		result{box: box}.drop()
		return false, err
	}
	h.s.box, h.s.env = box, env
	return true, nil
}

// failed decides whether a search that found nothing is the end.
func (h *hunt) failed(err error) error {
	var none *eva.NotFoundError
	if errors.As(err, &none) {
		return &huntError{none, h.waited(), h.up, h.known, h.upAt.Sub(h.began), h.s.cable.Name()}
	}
	return err
}

func (h *hunt) waited() time.Duration { return time.Since(h.began) }

// A huntError is a search that ended without a box, with what is known of the
// cable.
type huntError struct {
	*eva.NotFoundError
	waited    time.Duration
	up, known bool
	upAfter   time.Duration
	card      string
}

func (e *huntError) Unwrap() error { return e.NotFoundError }

// WayStage is the stage of the notes that make one line: cable dead → link up →
// bootloader seen → held.
const WayStage = "way"

// link takes a change of the cable; again: what was seen before belongs to the
// box's last life.
func (h *hunt) link(l linkNews) (again bool) {
	switch {
	case l.err != nil: // nobody can tell; say nothing of it
		return false
	case h.known && (h.up == l.up || l.quiet):
		return false
	}
	was := h.known
	h.known, h.up = true, l.up
	h.hints = 0
	h.hint.Reset(hintFirst)
	if !l.up {
		h.locked, h.seen = netip.Addr{}, netip.Addr{} // that was its last life
		h.tell.Note(WayStage, "cable dead")
		return was
	}
	h.upAt = time.Now()
	h.tell.Note(WayStage, "link up")
	if err := h.s.use(); err != nil { // a link that was down may have cost the addresses
		h.tell.Note("search", "our addresses on the cable could not be set again: "+err.Error())
	}
	return false
}

func (h *hunt) sighted(at netip.Addr) {
	if h.seen != at {
		h.seen = at
		h.tell.Note(WayStage, "bootloader seen at "+at.String())
	}
}

// sightsLeft tells what came before the box was held.
func (h *hunt) sightsLeft() {
	for {
		select {
		case x := <-h.sights:
			if x.What == eva.Answered {
				h.sighted(x.At)
			}
		default:
			return
		}
	}
}

// saw acts on one sight. again: the search has to start over.
func (h *hunt) saw(ctx context.Context, x eva.Sight) (again bool, err error) {
	switch x.What {
	case eva.Answered:
		h.sighted(x.At)
	case eva.SeenElsewhere:
		return h.goThere(x.At), nil
	case eva.Refused, eva.OtherFTP:
		if h.known && !h.up {
			break // of a box that has lost its power meanwhile
		}
		h.missed(fmt.Sprintf("at %s a system runs already: the boot window has passed", x.At))
	case eva.RunsSSH:
		if !h.asked[x.At] {
			h.asked[x.At] = true
			h.wg.Go(func() { h.askBySSH(ctx, x.At) })
		}
	case eva.SeenTI, eva.SeenSlint:
		return false, &conclusiveError{x}
	case eva.Dropped:
		h.locked = x.At
	case eva.Holding, eva.NotEVA:
	}
	return false, nil
}

// A conclusiveError is a sight after which waiting is of no use.
type conclusiveError struct{ eva.Sight }

func (e *conclusiveError) Error() string { return e.Sight.String() }

func (h *hunt) missed(what string) {
	h.tell.Note("missed", what+". Switch the box off, wait 5 s, and switch it on; heimweg keeps looking")
}

// goThere takes an address in the network of a bootloader that does not come to
// ours: very old ones only tell where they are (facts eva 2.2).
func (h *hunt) goThere(a netip.Addr) (again bool) {
	if !a.Is4() || slices.ContainsFunc(h.s.near, func(p netip.Prefix) bool { return p.Contains(a) }) {
		return false
	}
	b := a.As4()
	b[3] = 70
	if own := netip.AddrFrom4(b); own == a {
		b[3] = 71
	}
	near := append(slices.Clone(h.s.near), netip.PrefixFrom(netip.AddrFrom4(b), 24))
	if err := h.s.cable.Use(near...); err != nil {
		h.tell.Note("search", fmt.Sprintf("a bootloader answers from %s, where this computer has no address: %s", a, err))
		return false
	}
	h.s.near = near
	h.tell.Note(WayStage, "a bootloader answers from "+a.String())
	return true
}

// askBySSH finds out what runs where SSH answers. A system in RAM that has just
// started may need a second try.
func (h *hunt) askBySSH(ctx context.Context, at netip.Addr) {
	var l login
	for range 3 {
		l = h.s.login(ctx, at)
		if l.err == nil || wantsPassword(l.err) || pause(ctx, lookAgain) != nil {
			break
		}
	}
	select {
	case h.logins <- l:
	case <-ctx.Done():
	}
}

// loggedIn decides what an OpenWrt that answers means: one in RAM is an earlier
// run's, one from flash is a box that needs no flashing.
func (h *hunt) loggedIn(l login) (resumes bool, err error) {
	switch {
	case l.err == nil && l.state.Root == openwrt.RAMSystem && h.s.leaving: // on its way out
	case l.err == nil && l.state.Root == openwrt.RAMSystem:
		h.tell.Note(WayStage, "the system in RAM of an earlier run answers at "+l.at.String())
		h.s.ram = &l.state
		return true, nil
	case l.err == nil, wantsPassword(l.err):
		if h.s.o.Again {
			h.tell.Note("search", fmt.Sprintf("OpenWrt runs at %s. To flash it anew switch the box off, wait 5 s, and switch it on", l.at))
			return false, nil
		}
		return false, &alreadyError{l.at, l.state}
	}
	delete(h.asked, l.at)
	return false, nil
}

// An alreadyError says that the box runs OpenWrt.
type alreadyError struct {
	at    netip.Addr
	state openwrt.BootState
}

func (e *alreadyError) Error() string { return "OpenWrt runs at " + e.at.String() }

// giveHint says what to look at while nothing happens.
func (h *hunt) giveHint() {
	h.hints++
	h.hint.Reset(map[bool]time.Duration{false: hintAgain, true: hintRarely}[h.hints > 1])
	card := h.s.cable.Name()
	switch {
	case h.known && !h.up:
		h.tell.Note("hint", fmt.Sprintf("%s is still dead. Connect one of the box's yellow ports (not the blue WAN) to it, and plug the box's power in", card))
	case h.locked.IsValid():
		h.tell.Note("hint", fmt.Sprintf("a box answers at %s and lets nobody in: its bootloader may still wait for somebody who is gone. Unplug its power, wait 5 s, and plug it in again", h.locked))
	case h.hints == 1:
		h.tell.Note("hint", "no bootloader has answered yet. If the box was on already, unplug its power, wait 5 s, and plug it in again: it listens for a few seconds only")
	case h.hints > 2:
		h.tell.Note("hint", fmt.Sprintf("still looking, for %s now; the next power-on counts", minutes(h.waited())))
	default:
		h.tell.Note("hint", "still nothing. A yellow port, not the blue WAN? A plain switch or none in between (a managed one blocks for 30 s)? No Wi-Fi or VPN with addresses 192.168.178.x? "+
			"A firewall on this computer that drops UDP 5035? Then power off, 5 s, power on")
	}
}
