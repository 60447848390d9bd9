package flash

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/heimweg/heimweg/internal/eva"
	"github.com/heimweg/heimweg/internal/fault"
	"github.com/heimweg/heimweg/internal/image"
	"github.com/heimweg/heimweg/internal/openwrt"
	"github.com/heimweg/heimweg/internal/shell"
)

// install is the second half of the methods D and E: the system in RAM comes up,
// says what hardware this is, gets its files and installs OpenWrt. Every step may
// be done twice, so a connection that breaks is made again.
func (s *Session) install(ctx context.Context) error {
	if err := s.awaitRAM(ctx); err != nil {
		return err
	}
	board, err := s.judgeRAM()
	if err != nil {
		return err
	}
	for n := 0; ; n++ {
		err = s.installOnce(ctx, board)
		var lost *shell.LostError
		var gone *shell.UnreachableError
		if err == nil || ctx.Err() != nil || n == again || !errors.As(err, &lost) && !errors.As(err, &gone) {
			return err
		}
		s.o.Tell.Note("install", "the connection broke; once more")
		if err := pause(ctx, lookAgain); err != nil {
			return err
		}
	}
}

// awaitRAM waits for the system in RAM; with method E it is the TFTP server that
// U-Boot asks meanwhile (facts eva 3.1).
func (s *Session) awaitRAM(ctx context.Context) error {
	inner, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	wg.Go(func() { s.watch(inner, "ram") })
	served := make(chan struct{}, 1)
	if s.method == image.FromUBoot && s.ram == nil {
		wg.Go(func() { s.serve(inner, served) })
	}
	end := s.o.Tell.Stage("ram", "waiting for the small OpenWrt in the box's memory, about 2 minutes; the cable goes dead meanwhile, that is normal")
	l, err := s.await(inner, "the system in RAM", ramTime, func(l login) (bool, error) {
		if l.err == nil && l.state.Root == openwrt.RAMSystem {
			return true, nil
		}
		if l.err == nil && s.startsItself(l.state) {
			return true, nil
		}
		if l.err == nil && l.state.Root != openwrt.NotSeen || wantsPassword(l.err) {
			return false, &notRAMError{l}
		}
		return false, nil
	})
	var late *awaitError
	if errors.As(err, &late) && s.method == image.FromUBoot {
		select {
		case <-served:
		default:
			err = &noTFTPError{s.known.TFTP, late}
		}
	}
	done := "the small OpenWrt runs in the box's memory; nothing is written yet"
	if err == nil && l.state.Root != openwrt.RAMSystem {
		done = "U-Boot found an OpenWrt on the flash and started that; it installs the new one"
	}
	end(err, done)
	if err == nil {
		s.ram, s.oldKey = &l.state, l.key
	}
	return err
}

// startsItself: U-Boot looks into the flash before it fetches anything, so a box of
// method E with an OpenWrt on it starts that. It installs the new one as well as a
// system in RAM does (facts eva 3.1, E).
func (s *Session) startsItself(st openwrt.BootState) bool {
	return s.method == image.FromUBoot && (st.Root == openwrt.OnFlash || st.Root == openwrt.OnRAM) && s.isOurs(st.Board.Name)
}

// A notRAMError says that a system from flash came up where one from RAM was
// expected: the start from RAM did not work.
type notRAMError struct{ login }

func (e *notRAMError) Error() string { return "a system from flash came up" }

// A noTFTPError says that nobody asked for the file that U-Boot wants.
type noTFTPError struct {
	name string
	*awaitError
}

// serve gives U-Boot its file until ctx ends. A link that goes down may end a
// server, so it is started again.
func (s *Session) serve(ctx context.Context, served chan<- struct{}) {
	f, _ := s.file(RAMSystem, s.boards[0])
	told := map[string]bool{}
	var mu sync.Mutex
	tell := func(r eva.Request) {
		mu.Lock()
		defer mu.Unlock()
		switch {
		case r.Refused != "" && !told[r.Name]:
			told[r.Name] = true
			s.o.Tell.Note("tftp", fmt.Sprintf("the box asks for %q, which was refused: %s", printable(r.Name), r.Refused))
		case r.Refused == "" && !told[r.Name]:
			told[r.Name] = true
			s.o.Tell.Note("tftp", "U-Boot fetches "+r.Name)
			select {
			case served <- struct{}{}:
			default:
			}
		}
	}
	for ctx.Err() == nil {
		err := eva.ServeTFTP(ctx, s.cable, s.known.TFTP, f.Data, tell)
		if err == nil || ctx.Err() != nil {
			return
		}
		if !told[""] {
			told[""] = true
			s.o.Tell.Note("tftp", "the file server for U-Boot had to be started again: "+err.Error())
		}
		if pause(ctx, lookAgain) != nil {
			return
		}
	}
}

func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f {
			return '?'
		}
		return r
	}, s[:min(len(s), 80)])
}

// judgeRAM decides which board this is: what the system calls itself must be the
// box that its bootloader said, and the NAND's maker decides between two images.
// Where the kernel's log does not say, nothing is written: the wrong one would not
// start.
func (s *Session) judgeRAM() (image.Board, error) {
	st := s.ram
	if !s.isOurs(st.Board.Name) {
		return image.Board{}, fault.New("ram-other", "the system in RAM says that it runs on another box than %s", s.model()).
			Saw("it says %s", st.Board.Name).Do("switch the box off and on; its bootloader starts FRITZ!OS as before. Then run the same command again")
	}
	if st.FSStart == "1" && s.known.FSStart0 {
		return image.Board{}, fault.New("fs-start", "the bootloader would start the wrong half of the flash after this (linux_fs_start is 1)").
			Because("it can be set in the bootloader only").
			Do("switch the box off, run the same command again, and switch it on when told: heimweg sets it")
	}
	if len(s.boards) == 1 {
		return s.runsOn(s.boards[0])
	}
	if st.NAND == "" {
		return image.Board{}, fault.New("nand-not-known", "%s exists with NAND of different makers, and the kernel's log does not say which one this has", s.model()).
			Because("the image for the other one would not start; nothing was written").
			Do("look into FRITZ!OS' support data for \"NAND device\", then name the board: --board %s or --board %s", s.boards[0].Profile, s.boards[1].Profile)
	}
	micron := func(b image.Board) bool { return strings.HasSuffix(b.Name, "-micron") }
	i := slices.IndexFunc(s.boards, func(b image.Board) bool { return micron(b) == (st.NAND == "Micron") })
	s.o.Tell.Note("ram", fmt.Sprintf("the NAND is by %s, so the files are those of %s", maker(st.NAND), s.boards[i].Profile))
	return s.runsOn(s.boards[i])
}

// runsOn: the system in RAM must be the one for that board, too. The one for the
// other maker starts, and says who made the NAND, but it would write it with
// another error correction, which the system on flash could not read.
func (s *Session) runsOn(b image.Board) (image.Board, error) {
	if b.Is(s.ram.Board.Name) {
		return b, nil
	}
	return b, &otherNANDError{b}
}

// An otherNANDError says that the system in RAM is the one for another maker's
// NAND.
type otherNANDError struct{ board image.Board }

func (e *otherNANDError) Error() string { return "the box needs the system for " + e.board.Profile }

// changeRAM ends the system in RAM, waits for the box's bootloader and starts the
// right one.
func (s *Session) changeRAM(ctx context.Context, b image.Board) error {
	s.boards = []image.Board{b}
	if _, ok := s.file(RAMSystem, b); !ok {
		// An earlier run's system; the one for the other maker was not needed so far.
		if err := s.gather(ctx); err != nil {
			return err
		}
	}
	s.o.Tell.Note("ram", "the box starts again, for the system of its own NAND")
	open, stop := context.WithTimeout(ctx, loginTime)
	defer stop()
	c, err := s.open(open, fresh)
	if err != nil {
		return err
	}
	err = openwrt.RestartFromRAM(open, c)
	c.Close()
	if err != nil {
		return err
	}
	s.ram, s.leaving = nil, true
	defer func() { s.leaving = false }()
	if err := s.findAgain(ctx); err != nil {
		return err
	}
	return s.send(ctx)
}

func maker(s string) string {
	if strings.HasPrefix(s, "0x") {
		return "a maker with the number " + s
	}
	return s
}

const (
	systemName = "sysupgrade.bin"
	ubootName  = "uboot.bin"
)

// installOnce copies and writes over one connection.
func (s *Session) installOnce(ctx context.Context, board image.Board) error {
	system, ok := s.file(System, board)
	if !ok {
		return fault.New("image-other-board", "the file that was given is for the other maker's NAND").
			Saw("this box needs the one of %s", board.Profile).Because("the other one would not start; nothing was written").
			Do("run the same command again without the file: heimweg fetches the right one, and goes on where this ended")
	}
	open, stop := context.WithTimeout(ctx, loginTime)
	defer stop()
	c, err := s.open(open, fresh)
	if err != nil {
		return err
	}
	defer c.Close()
	if s.method == image.FromUBoot {
		uboot, ok := s.file(UBoot, board)
		if !ok {
			return s.needsFile(UBoot)
		}
		if err := s.copy(ctx, c, ubootName, uboot); err != nil {
			return err
		}
	}
	if err := s.copy(ctx, c, systemName, system); err != nil {
		return err
	}
	s.touched = true
	if s.method == image.FromUBoot {
		if err := s.stage(ctx, "u-boot", "writing U-Boot to both of its places, removing AVM's volumes; do not unplug", "U-Boot is written", func(ctx context.Context) error {
			return openwrt.WriteUBoot(ctx, c, ubootName)
		}); err != nil {
			return err
		}
	}
	return s.stage(ctx, "install", "OpenWrt is being installed by the box itself; do not unplug", "the box installs OpenWrt and starts it", func(ctx context.Context) error {
		return openwrt.InstallFromRAM(ctx, c, systemName)
	})
}

func (s *Session) copy(ctx context.Context, c *shell.Conn, name string, f File) error {
	ctx, stop := context.WithTimeout(ctx, copyTime)
	defer stop()
	end := s.o.Tell.Stage("copy", fmt.Sprintf("copying the %s (%d bytes) into the box's memory", f.Role, len(f.Data)))
	err := openwrt.CopyTo(ctx, c, name, f.Data)
	end(err, fmt.Sprintf("the %s is on the box and whole", f.Role))
	return err
}

func (s *Session) stage(ctx context.Context, name, text, good string, do func(context.Context) error) error {
	ctx, stop := context.WithTimeout(ctx, installIn)
	defer stop()
	end := s.o.Tell.Stage(name, text)
	err := do(ctx)
	end(err, good)
	return err
}
