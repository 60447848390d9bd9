package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/heimweg/heimweg/internal/event"
	"github.com/heimweg/heimweg/internal/fault"
	"github.com/heimweg/heimweg/internal/firmware"
	"github.com/heimweg/heimweg/internal/image"
	"github.com/heimweg/heimweg/internal/store"
	"github.com/heimweg/heimweg/internal/view"
)

// firmwareFlags say where firmware comes from; flash and upgrade take them, too.
type firmwareFlags struct {
	mirror, builder, release string
	keys                     []string
}

// riskUnverified accepts lists that nobody here can check.
const riskUnverified = "unverified-firmware"

func (f *firmwareFlags) add(a *app, c *cobra.Command, release bool) {
	fl := c.Flags()
	fl.StringVar(&f.mirror, "mirror", a.Getenv("HEIMWEG_MIRROR"), "where to take files from, an address or a folder (default: "+firmware.Official+")")
	fl.StringSliceVar(&f.keys, "key", nil, "file with a public key (usign or OpenPGP) to trust beside OpenWrt's")
	if release {
		fl.StringVar(&f.release, "release", "", "OpenWrt release (default: the newest stable one)")
	}
}

// cacheFolder is where downloads are kept.
func (a *app) cacheFolder() (string, error) {
	if a.Config == "" && a.Getenv("HEIMWEG_CONFIG") == "" {
		if d, err := os.UserCacheDir(); err == nil {
			return filepath.Join(d, "heimweg"), nil
		}
	}
	d, err := a.folder()
	return filepath.Join(d, "cache"), err
}

func agent() string { return "heimweg/" + Version }

// source opens what the flags name.
func (a *app) source(f firmwareFlags) (*firmware.Source, error) {
	keys := a.Keys
	if keys == nil {
		keys = firmware.OpenWrt()
	}
	for _, name := range f.keys {
		b, err := store.Read(name)
		if err != nil {
			return nil, fault.NewUsage("key-file", "the key's file cannot be read").Saw("%s", err).Do("name a file with a public key").From(err)
		}
		k, err := firmware.ParseKey(b)
		if err != nil {
			return nil, fault.NewUsage("key-file", "%s is no public key", name).Saw("%s", err).Do("name a usign or OpenPGP public key, as keyring.git of OpenWrt has them")
		}
		keys = keys.With(k)
	}
	dir, err := a.cacheFolder()
	if err != nil {
		return nil, err
	}
	if err := mirrorFolder(f.mirror); err != nil {
		return nil, err
	}
	s, err := firmware.Open(firmware.Options{From: f.mirror, Transport: a.Web, Keys: keys, Cache: dir, Agent: agent(),
		AcceptUnverified: slices.Contains(a.risks, riskUnverified)})
	return s, firmware.Explain(err)
}

// mirrorFolder: a folder that is to stand in for the download server is there.
func mirrorFolder(name string) error {
	if name == "" || strings.Contains(name, "://") {
		return nil
	}
	if info, err := os.Stat(name); err != nil || !info.IsDir() {
		return fault.NewUsage("no-folder", "there is no folder %s", name).Do("name a folder, as firmware bundle makes one, or an address that begins with https://")
	}
	return nil
}

// boardOf finds the board that a person means: "4040", a board's name, a profile.
// hw is the HWRevision where the name says it: a 7520 shares the 7530's profile.
func boardOf(name string) (b image.Board, hw int, err error) {
	short := strings.ToLower(strings.TrimSpace(name))
	var near []string
	for _, b := range image.Boards() {
		if b.Is(name) || b.Short() == short {
			return b, 0, nil
		}
		for rev, u := range b.UBoots {
			if u == "fritz"+short {
				return b, rev, nil
			}
		}
		if strings.HasPrefix(b.Short(), short+"-") || len(short) > 2 && strings.Contains(b.Short(), short) {
			near = append(near, b.Short())
		}
	}
	f := fault.NewUsage("board-unknown", "%q is none of the boards that we know", name)
	if len(near) > 0 {
		return b, 0, f.Do("did you mean: %s", strings.Join(near, ", "))
	}
	return b, 0, f.Do("heimweg firmware list shows them")
}

func (a *app) firmwareCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "firmware", Short: "images of OpenWrt: list, fetch, check, take along",
		Long: `firmware fetches OpenWrt's images for AVM boxes and says what a file is. Every image is
compared with the release's checksum list, and the list's signature with OpenWrt's
keys, which ship with heimweg. A folder laid out as OpenWrt lays out its downloads, such
as a USB stick made by firmware bundle, is as good: --mirror FOLDER.`,
		Args: cobra.NoArgs,
	}
	c.AddCommand(a.firmwareList(), a.firmwareGet(), a.firmwareCheck(), a.firmwareBundle())
	return c
}

func (a *app) firmwareList() *cobra.Command {
	var f firmwareFlags
	c := &cobra.Command{
		Use: "list", Short: "the releases, and the boards that heimweg knows", Args: cobra.NoArgs,
		Example: "  heimweg firmware list\n  heimweg firmware list --mirror /media/stick --json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := a.source(f)
			if err != nil {
				return err
			}
			v := view.Firmware{From: s.From(), Boards: view.FirmwareBoards(image.Boards())}
			r, err := s.Releases(cmd.Context())
			switch {
			case cmd.Context().Err() != nil:
				return cmd.Context().Err()
			case err != nil:
				v.NotKnown = sentence(firmware.Explain(err))
			default:
				v.Stable, v.OldStable, v.Releases, v.SeenBefore = r.Stable, r.OldStable, r.All, r.SeenBefore
			}
			if a.json {
				return a.printJSON(v)
			}
			view.FirmwareText(a.Out, a.style, v)
			return nil
		},
	}
	f.add(a, c, false)
	return c
}

// sentence is what happened, without the advice.
func sentence(err error) string {
	if f := fault.Find(err); f != nil {
		return f.What
	}
	return err.Error()
}

func (a *app) firmwareGet() *cobra.Command {
	var f firmwareFlags
	var out string
	var types, with []string
	c := &cobra.Command{
		Use: "get BOARD", Short: "fetch the images for a board, checked", Args: cobra.ExactArgs(1),
		Long: `get fetches what a board needs: to come from FRITZ!OS to OpenWrt, and to be upgraded
later. Nothing is written to a box.

--with asks OpenWrt's image builder for images that hold these packages already, so
that the box needs no internet at its first start. The builder learns the board, the
release and the packages' names. Nobody signs an image for the boot loader that was
built on request; when the builder cannot, the plain images are fetched.`,
		Example: "  heimweg firmware get 4040\n  heimweg firmware get 7530 --release 24.10.8 -o images\n  heimweg firmware get 4040 --with wireguard-tools",
		RunE: func(cmd *cobra.Command, args []string) error {
			b, hw, err := boardOf(args[0])
			if err != nil {
				return err
			}
			files, err := a.fetch(cmd.Context(), f, b, hw, types, with)
			if err != nil {
				return err
			}
			return a.putFiles(files, out)
		},
	}
	f.add(a, c, true)
	c.Flags().StringVarP(&out, "output", "o", ".", "folder to put the files into")
	c.Flags().StringSliceVar(&types, "type", nil, "only these kinds: eva, sysupgrade, kernel, eva-kernel, eva-filesystem, u-boot")
	c.Flags().StringSliceVar(&with, "with", nil, "packages that the image shall hold")
	c.Flags().StringVar(&f.builder, "builder", a.Getenv("HEIMWEG_BUILDER"), "image builder to ask (default: "+firmware.OfficialBuilder+")")
	return c
}

// fetch gets all files for a board, or those of some types.
func (a *app) fetch(ctx context.Context, f firmwareFlags, b image.Board, hw int, types, with []string) ([]firmware.File, error) {
	s, err := a.source(f)
	if err != nil {
		return nil, err
	}
	tell := a.tell()
	version, err := a.release(ctx, s, f.release, tell)
	if err != nil {
		return nil, err
	}
	wants := firmware.ForFlash(b, version, hw)
	if !slices.ContainsFunc(wants, func(w firmware.Want) bool { return w.Type == firmware.TypeSysupgrade }) {
		wants = append(wants, firmware.ForUpgrade(b, version))
	}
	var out []firmware.File
	for _, w := range wants {
		if len(types) > 0 && !slices.Contains(types, w.Type) {
			continue
		}
		file, err := a.fetchOne(ctx, s, f, w, with, tell)
		if err != nil {
			return nil, err
		}
		if err := a.structure(file, w, hw); err != nil {
			return nil, err
		}
		out = append(out, file)
	}
	if len(out) == 0 {
		return nil, fault.NewUsage("no-type", "the %s has no images of that kind", b.Model).Do("leave --type away to get all")
	}
	return out, nil
}

// release is the one to take, with a word when the list is outdated.
func (a *app) release(ctx context.Context, s *firmware.Source, version string, tell event.Tell) (string, error) {
	if version != "" {
		return version, nil
	}
	r, err := s.Releases(ctx)
	if err != nil {
		return "", firmware.Explain(err)
	}
	if r.SeenBefore != "" {
		tell.Note("releases", fmt.Sprintf("the list of releases at %s is older than one seen before, which named %s; going on with %s (--release chooses)", s.From(), r.SeenBefore, r.Stable))
	}
	return r.Stable, nil
}

// fetchOne gets one file, from the image builder when packages shall be inside and
// it can, else from the release.
func (a *app) fetchOne(ctx context.Context, s *firmware.Source, f firmwareFlags, w firmware.Want, with []string, tell event.Tell) (firmware.File, error) {
	if len(with) > 0 && f.folder() != "" {
		if file, err := a.builtBefore(s, w, with, tell); err != nil || file.Path != "" {
			return file, err
		}
	}
	if len(with) > 0 && isBuilt(w) {
		file, err := a.build(ctx, f, w, with, tell)
		why, plain := firmware.PlainInstead(err)
		switch {
		case err == nil:
			return file, nil
		case !plain || ctx.Err() != nil:
			return file, firmware.Explain(err)
		}
		tell.Note("builder", why+"; taking the plain image, the packages come later")
	}
	text := "the " + w.Type + " image"
	end := tell.Stage("image", text)
	file, err := s.Get(ctx, w, bytesOf(tell, "image", text))
	end(err, fmt.Sprintf("%s, %s, %s", file.Name, view.Bytes(file.Size), file.Signed))
	return file, firmware.Explain(err)
}

func bytesOf(tell event.Tell, stage, text string) func(firmware.Progress) {
	return func(p firmware.Progress) {
		if p.Waiting != "" {
			tell.Note(stage, p.Waiting)
			return
		}
		tell.Bytes(stage, text, p.Done, p.Total, p.Rate)
	}
}

// build asks the image builder.
func (a *app) build(ctx context.Context, f firmwareFlags, w firmware.Want, with []string, tell event.Tell) (firmware.File, error) {
	dir, err := a.cacheFolder()
	if err != nil {
		return firmware.File{}, err
	}
	b, err := firmware.NewBuilder(firmware.BuilderOptions{From: f.builder, Transport: a.Web, Cache: dir, Agent: agent()})
	if err != nil {
		return firmware.File{}, err
	}
	text := "an " + w.Type + " image with " + strings.Join(with, ", ")
	end := tell.Stage("builder", text)
	last := -1
	file, err := b.Build(ctx, w, with, func(p firmware.Building) {
		if p.Position != last && p.Position > 0 {
			tell.Note("builder", fmt.Sprintf("waiting in the image builder's queue, place %d", p.Position))
		}
		last = p.Position
	}, bytesOf(tell, "builder", text))
	end(err, fmt.Sprintf("%s with %s, %s, %s", file.Name, strings.Join(with, ", "), view.Bytes(file.Size), file.Signed))
	return file, err
}

// structure looks into a file: what a list vouches for could still be the wrong one.
func (a *app) structure(file firmware.File, w firmware.Want, hw int) error {
	m, err := identify(file.Path)
	if err != nil {
		return err
	}
	p := image.Purpose{Use: w.Use(), Board: w.Profile, HWRevision: hw, Version: w.Version}
	if w.Type == firmware.TypeEVAFileSystem {
		p.Partition = "mtd0"
	}
	if w.Type == firmware.TypeUBoot && hw == 0 {
		b, _ := image.BoardNamed(w.Profile)
		for rev, u := range b.UBoots {
			if u == w.UBoot {
				p.HWRevision = rev
			}
		}
	}
	return image.For(m, p)
}

func identify(path string) (image.Image, error) {
	f, err := os.Open(path)
	if err != nil {
		return image.Image{}, fault.NewUsage("no-file", "the file cannot be read").Saw("%s", err).Do("name a file that is there").From(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		return image.Image{}, fault.NewUsage("no-file", "%s is not a file", path).Do("name an image's file")
	}
	if err != nil {
		return image.Image{}, err
	}
	return image.Identify(f, info.Size())
}

// putFiles copies checked files to where the person wants them and says so.
func (a *app) putFiles(files []firmware.File, dir string) error {
	for i, f := range files {
		b, err := store.Read(f.Path)
		if err != nil {
			return err
		}
		at := filepath.Join(dir, f.Name)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return firmware.Explain(&firmware.DiskError{Path: dir, Err: err})
		}
		if err := store.Create(at, b, 0o644); errors.Is(err, fs.ErrExist) {
			if have, e := identify(at); e != nil || have.SHA256 != f.SHA256 {
				return fault.New("file-exists", "%s is there already and is another file", at).Do("move it away, or name another folder with -o")
			}
		} else if err != nil {
			return firmware.Explain(&firmware.DiskError{Path: at, Need: f.Size, Err: err})
		}
		files[i].Path = at
	}
	if a.json {
		return a.printJSON(files)
	}
	for _, f := range files {
		fmt.Fprintf(a.Out, "%-14s %s\n", f.Type, f.Path)
	}
	return nil
}

func (a *app) firmwareCheck() *cobra.Command {
	var f firmwareFlags
	var board string
	var upgrade bool
	c := &cobra.Command{
		Use: "check FILE", Short: "what a file is, whether it is whole and genuine", Args: cobra.ExactArgs(1),
		Long: `check reads a file and says what it is: for which board, of which kind and release,
whether it is whole, and whether a release's signed list names it. The file's name does
not matter. With --for it says whether the file is right for a board that still runs
FRITZ!OS, or with --upgrade for one that runs OpenWrt.`,
		Example: "  heimweg firmware check openwrt.bin\n  heimweg firmware check openwrt.bin --for 4040\n  heimweg firmware check openwrt.bin --for 4040 --upgrade",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.check(cmd.Context(), f, args[0], board, upgrade)
		},
	}
	f.add(a, c, true)
	c.Flags().StringVar(&board, "for", "", "board that the file shall be right for")
	c.Flags().BoolVar(&upgrade, "upgrade", false, "the board runs OpenWrt already")
	return c
}

func (a *app) check(ctx context.Context, f firmwareFlags, file, board string, upgrade bool) error {
	m, err := identify(file)
	if err != nil {
		return err
	}
	v := view.FirmwareCheck{File: file, Image: m, Whole: map[image.State]string{image.Good: "yes", image.Bad: "no", image.NotKnown: "not known"}[m.Whole()]}
	a.genuine(ctx, f, m, &v)
	var wrong error
	if board != "" {
		b, hw, err := boardOf(board)
		if err != nil {
			return err
		}
		p := image.Purpose{Use: useOf(m, b, upgrade), Board: b.Name, HWRevision: hw, Version: cmp.Or(v.Release, f.release)}
		if m.Kind == image.FileSystem {
			p.Partition = "mtd0"
		}
		if wrong = image.For(m, p); wrong == nil {
			v.For = b.String()
		}
	}
	switch {
	case a.json && wrong == nil:
		err = a.printJSON(v)
	case !a.json:
		view.FirmwareCheckText(a.Out, a.style, v)
	}
	if wrong != nil {
		return wrong
	}
	if m.Whole() == image.Bad {
		return errExit(fault.ExitDifferences)
	}
	return err
}

// useOf is what somebody with that board would do with the file.
func useOf(m image.Image, b image.Board, upgrade bool) image.Use {
	switch {
	case upgrade:
		return image.UpgradeOpenWrt
	case b.Writes():
		return image.FlashThroughEVA
	case m.Kind == image.Sysupgrade:
		return image.UpgradeOpenWrt // the RAM-booted system takes it
	case m.Kind == image.Initramfs:
		return image.NetBoot
	}
	return image.RAMBoot
}

// genuine looks for the file in the signed lists of the releases that it may be of.
func (a *app) genuine(ctx context.Context, f firmwareFlags, m image.Image, v *view.FirmwareCheck) {
	targets := map[string]bool{}
	for _, name := range m.Boards {
		if b, ok := image.BoardNamed(name); ok {
			targets[b.Target] = true
		}
	}
	if len(targets) == 0 {
		v.NotKnown = "it names no board of ours, so there is no list to compare it with"
		return
	}
	s, err := a.source(f)
	if err != nil {
		v.NotKnown = sentence(err)
		return
	}
	versions, err := a.candidates(ctx, s, f.release, m)
	if err != nil {
		v.NotKnown = sentence(err)
		return
	}
	for t := range targets {
		version, name, by, err := s.Recognise(ctx, m.SHA256, t, versions)
		switch {
		case err != nil:
			v.NotKnown = sentence(firmware.Explain(err))
			return
		case version != "" && by.Signed():
			v.Release, v.Name, v.Signed, v.NotKnown = version, name, "in the list of OpenWrt "+version+" as "+name+", "+by.String(), ""
			return
		case version != "":
			v.Release, v.Name, v.NotKnown = version, name, "a list names it, and nobody signed the list"
			return
		}
	}
	v.NotKnown = "no signed list of " + strings.Join(versions, ", ") + " names it; builders make images of their own"
}

// maxCandidates is how many releases' lists are fetched for one file.
const maxCandidates = 12

// candidates are the releases that a file may be of: what it says, or all of the
// line that its kernel belongs to.
func (a *app) candidates(ctx context.Context, s *firmware.Source, release string, m image.Image) ([]string, error) {
	switch {
	case release != "":
		return []string{release}, nil
	case m.Release.Version != "" && !m.Release.Guessed:
		return []string{m.Release.Version}, nil
	}
	r, err := s.Releases(ctx)
	if err != nil {
		return nil, firmware.Explain(err)
	}
	var out []string
	for _, v := range r.All {
		if m.Release.Version == "" || firmware.Line(v) == firmware.Line(m.Release.Version) {
			out = append(out, v)
		}
	}
	if len(out) == 0 {
		return nil, fault.New("no-release", "the mirror names no release of the line %s", m.Release.Version).Do("name one with --release")
	}
	return out[:min(len(out), maxCandidates)], nil
}
