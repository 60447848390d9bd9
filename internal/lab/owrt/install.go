package owrt

import "github.com/heimweg/heimweg/internal/router"

// A Release is what an image installs.
type Release struct {
	Line    router.Line
	Version string // "24.10.7"; "" for the line's last one known
	// Packages that are inside beside the default ones.
	Packages []string
}

// Install puts another release onto the flash, as a bootloader does that was given
// its image: all settings and host keys are gone. The box must be off.
func (b *Box) Install(r Release) {
	b.mu.Lock()
	k := b.k
	b.mu.Unlock()
	if k != nil {
		k.Wait() // nothing of the last life reads the options any more
	}
	if r.Version == "" {
		r.Version = lastVersion[r.Line]
	}
	b.opt.Line, b.opt.Version, b.opt.Packages = r.Line, r.Version, r.Packages
	b.Reflash()
}

// Case sets Options.Flashed and Options.Restart of a box that is off.
func (b *Box) Case(flashed func(image []byte) error, restart func()) {
	b.opt.Flashed, b.opt.Restart = flashed, restart
}
