package flash

import (
	"context"
	"net/netip"

	"github.com/heimweg/heimweg/internal/eva"
	"github.com/heimweg/heimweg/internal/event"
	"github.com/heimweg/heimweg/internal/fault"
	"github.com/heimweg/heimweg/internal/image"
)

// Recovery says whether a file is what brings FRITZ!OS back: AVM's recovery
// program. Others are a fault that says what they are.
func Recovery(f File) error {
	if err := f.identify(); err != nil {
		return err
	}
	right := "fetch AVM's recovery program for your model from AVM's download server (ftp.avm.de, the folder fritzbox/…/other/recover)"
	switch f.Image.Kind {
	case image.AVMRecovery:
		return nil
	case image.AVMImage:
		return fault.New("not-recovery", "this is AVM's firmware for FRITZ!OS' own update page, not the recovery program").Saw("%s, %d bytes", f.Image.Format, f.Image.Size).
			Because("a box without FRITZ!OS has no such page").Do("%s", right)
	case image.AVMKernel:
		return fault.New("not-recovery", "this is a kernel of AVM or Freetz alone, not the recovery program").Saw("%s, %d bytes", f.Image.Format, f.Image.Size).
			Because("it holds no file system").Do("%s", right)
	default:
		return fault.New("not-recovery", "this file does not bring FRITZ!OS back").Saw("%s, %d bytes", f.Image.Format, f.Image.Size).Do("%s", right)
	}
}

// A Loader is a bootloader that was found for somebody else's program.
type Loader struct {
	At         netip.Addr `json:"at"`
	Version    string     `json:"bootloader"`
	HWRevision string     `json:"hwrevision"`
	Model      string     `json:"model,omitempty"` // "" when we do not know it
	// Home is where it sits by itself at its next start, zero when it does not say.
	Home netip.Addr `json:"own_address"`
	box  *eva.Box
}

// FindLoader finds a box's bootloader and reads what it is, for the way back:
// recovery programs often look at 192.168.178.1 only. It changes nothing.
func FindLoader(ctx context.Context, o Options) (*Loader, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	o.Again = true
	s := &Session{o: o, cable: o.Cable, near: append([]netip.Prefix(nil), ours...)}
	err := s.use()
	if err == nil {
		err = newHunt(s).run(ctx)
	}
	if err != nil {
		return nil, s.explain(err)
	}
	if s.box == nil {
		return nil, fault.New("ram-system", "the box runs a system in its memory that heimweg started").Do("switch the box off, run the same command again, and switch it on when told")
	}
	l := &Loader{At: s.box.Addr(), Version: s.box.Version(), HWRevision: s.env.HWRevision(), box: s.box}
	if b, err := eva.BoardOf(s.env); err == nil {
		l.Model = b.Name
	}
	l.Home, _ = s.env.Address()
	return l, nil
}

// Usual reports whether the bootloader sits where recovery programs look for it.
func (l *Loader) Usual() bool { return l.Home == eva.Home }

// GoHome makes the bootloader take 192.168.178.1 from its next start on; with the
// household's consent.
func (l *Loader) GoHome(ctx context.Context, tell event.Tell) error {
	end := tell.Stage("address", "giving the bootloader its usual address")
	err := l.box.GoHome(ctx)
	end(err, "from its next start on the bootloader answers at "+eva.Home.String())
	if err != nil {
		return Explain(err)
	}
	l.Home = eva.Home
	return nil
}

// Close starts the box again, so that the other program can catch it in its boot
// window.
func (l *Loader) Close(ctx context.Context) {
	result{box: l.box}.drop()
}
