package cli

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/heimweg/heimweg/internal/backup"
	"github.com/heimweg/heimweg/internal/blueprint"
	"github.com/heimweg/heimweg/internal/fault"
	"github.com/heimweg/heimweg/internal/firmware"
	"github.com/heimweg/heimweg/internal/image"
	"github.com/heimweg/heimweg/internal/openwrt"
	"github.com/heimweg/heimweg/internal/router"
	"github.com/heimweg/heimweg/internal/seal"
	"github.com/heimweg/heimweg/internal/shell"
	"github.com/heimweg/heimweg/internal/store"
	"github.com/heimweg/heimweg/internal/upgrade"
	"github.com/heimweg/heimweg/internal/view"
)

// Risks of upgrade, by name.
const (
	riskOverwrites = "overwrites-firmware"
	riskRemakes    = "remakes-settings"
)

func (a *app) upgradeCommand() *cobra.Command {
	var f firmwareFlags
	var plain bool
	var to, saved string
	c := &cobra.Command{
		Use: "upgrade [IMAGE]", Short: "bring the home router to a newer OpenWrt without losing the way home", Args: cobra.MaximumNArgs(1),
		Long: `upgrade fetches the newest OpenWrt that keeps the router's settings, with the packages it
needs inside where OpenWrt's image builder can, makes a backup, lets the router check
the image, asks, and upgrades. Then it waits, puts back packages, and finds everything
as home.toml wants it before it calls it done. No device needs a new configuration.

Settings are carried over one release line at a time (23.05 → 24.10 → 25.12). Where a
release cannot take them (the 4040 on its way from 22.03 to a newer one), they are made
anew from home.toml and the backup; the router keeps its host key, its password and its
address.

The backup lies in heimweg's own folder and opens with heimweg's own key on this
computer. An upgrade that was interrupted is finished by running the command again.

A power cut while the router writes (about a minute) leaves a box that has to be
flashed by cable: heimweg flash, then heimweg restore.`,
		Example: `  heimweg upgrade
  heimweg upgrade --to 24.10
  heimweg upgrade openwrt-…-squashfs-sysupgrade.bin
  heimweg upgrade --accept-risk=overwrites-firmware     without asking`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.upgrade(cmd.Context(), args, f, to, saved, plain)
		},
	}
	f.add(a, c, false)
	c.Flags().StringVar(&to, "to", "", "release to go to, such as 24.10 or 24.10.8 (default: the newest that keeps settings)")
	c.Flags().StringVar(&f.builder, "builder", a.Getenv("HEIMWEG_BUILDER"), "image builder to ask (default: "+firmware.OfficialBuilder+")")
	c.Flags().BoolVar(&plain, "plain", false, "take the plain image; packages are installed afterwards")
	c.Flags().StringVar(&saved, "backup", "", "backup to finish an interrupted upgrade with (default: the one it made)")
	return c
}

func (a *app) upgrade(ctx context.Context, args []string, f firmwareFlags, to, saved string, plain bool) error {
	unlock, err := a.lockHome()
	if err != nil {
		return err
	}
	defer unlock()
	file, err := a.readHome()
	if err != nil {
		return err
	}
	o := upgrade.Order{
		To: to, HomeText: string(file.Text()), Program: Version, Tell: a.tell(),
		Look: openwrt.LookFor{Packages: blueprint.PackageNames(file.Home)},
		Open: func(path string) (backup.Backup, error) {
			if saved != "" {
				path = saved
			}
			return a.openBackup(path, keyring{})
		},
	}
	if len(args) == 1 {
		if o.Image, err = imageFile(args[0]); err != nil {
			return err
		}
	}
	v, err := a.visit(ctx, file)
	if err != nil {
		return a.withBackup(err)
	}
	o.Way, o.Request, o.Images = v.way, v.request, &images{a: a, f: f, plain: plain}
	o.Keep = func(b backup.Backup) (string, error) { return a.keepBackup(b, v.own) }
	o.Consent = func(p upgrade.Plan) error { return a.agreeToUpgrade(ctx, p) }
	res, err := upgrade.Do(ctx, v.Session, o)
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(res)
	}
	view.UpgradedText(a.Out, a.style, res)
	return nil
}

// withBackup names the last backup when the router is not the one that we knew: a
// power cut may have cost it its settings.
func (a *app) withBackup(err error) error {
	var key *shell.HostKeyError
	f := fault.Find(err)
	if f == nil || !errors.As(err, &key) {
		return err
	}
	dir, ferr := a.folder()
	if ferr != nil {
		return err
	}
	list, _ := filepath.Glob(filepath.Join(dir, "backups", fileName(a.router)+"-*.age"))
	if len(list) > 0 {
		slices.Sort(list)
		f.Do("if an upgrade lost its settings: heimweg restore %s", list[len(list)-1])
	}
	return err
}

// keepBackup keeps a backup in heimweg's folder, locked to heimweg's own key.
func (a *app) keepBackup(b backup.Backup, own shell.LoginKey) (string, error) {
	dir, err := a.folder()
	if err != nil {
		return "", err
	}
	dir = filepath.Join(dir, "backups")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	lock, err := seal.Recipients(own.Authorized)
	if err != nil {
		return "", err
	}
	text, err := sealed(b, lock)
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, fileName(a.router)+"-"+a.Now().UTC().Format("20060102-150405")+"-"+fileName(b.Board.Release.Version)+".age")
	if err := store.Create(path, text, 0o600); err != nil && !errors.Is(err, os.ErrExist) {
		return "", fault.New("backup-not-kept", "the backup could not be kept").Saw("%s", err).From(err).
			Because("without one nothing is upgraded").Do("make room on this computer, then run the same command again")
	}
	return path, nil
}

func (a *app) agreeToUpgrade(ctx context.Context, p upgrade.Plan) error {
	if !a.json {
		view.UpgradeText(a.Out, a.style, p)
	}
	risks := []string{riskOverwrites}
	if p.Fresh {
		risks = append(risks, riskRemakes)
	}
	risks = slices.DeleteFunc(risks, func(r string) bool { return slices.Contains(a.risks, r) })
	if len(risks) == 0 {
		return nil
	}
	flags := "--accept-risk=" + strings.Join(risks, ",")
	if !a.Terminal.IsTerminal() {
		return needsPerson("the router's firmware is overwritten", flags)
	}
	a.sayf("The way home is closed for some minutes. Do not unplug the router meanwhile: half an image does not start.")
	got, err := a.ask(ctx, `Type "upgrade" to go on, or pass `+flags+":", "", flags)
	if err != nil {
		return err
	}
	if got != "upgrade" {
		return nothingDone()
	}
	return nil
}

// imageFile takes a file that a person named.
func imageFile(path string) (*upgrade.Image, error) {
	m, err := identify(path)
	if err != nil {
		return nil, err
	}
	if m.Whole() == image.Bad || m.Kind == image.Sysupgrade && !m.HasMetadata {
		return nil, fault.NewUsage("image-damaged", "%s is not whole: it was cut off, or changed on its way", path).
			Do("fetch it again; heimweg upgrade without a file does that, too. heimweg firmware check %s says more", path)
	}
	if m.Kind != image.Sysupgrade {
		return nil, fault.NewUsage("image-wrong-kind", "%s is not for an upgrade: it is %s", path, m.Format).
			Do("heimweg upgrade without a file fetches the right one; heimweg firmware check %s says more", path)
	}
	if m.Release.Version == "" {
		return nil, fault.NewUsage("image-unnamed", "%s does not say which release it holds", path).Do("heimweg upgrade without a file fetches one that does")
	}
	data, err := store.Read(path)
	if err != nil {
		return nil, err
	}
	return &upgrade.Image{Name: filepath.Base(path), Version: m.Release.Version, Bytes: data, Vouched: "a file of yours; the router checks it"}, nil
}

// images fetches from OpenWrt's servers, or what stands for them.
type images struct {
	a     *app
	f     firmwareFlags
	plain bool
	from  *firmware.Source
}

func (i *images) source() (*firmware.Source, error) {
	var err error
	if i.from == nil {
		i.from, err = i.a.source(i.f)
	}
	return i.from, err
}

func (i *images) Releases(ctx context.Context) ([]string, error) {
	s, err := i.source()
	if err != nil {
		return nil, err
	}
	r, err := s.Releases(ctx)
	return r.All, firmware.Explain(err)
}

func (i *images) Get(ctx context.Context, version string, b router.Board, packages []string) (upgrade.Image, error) {
	board, ok := image.BoardNamed(b.Name)
	if !ok {
		return upgrade.Image{}, fault.New("board-unknown", "heimweg fetches images for AVM's boxes only, and this is %s", b.Model).
			Do("fetch the sysupgrade image for it from firmware-selector.openwrt.org, then: heimweg upgrade FILE")
	}
	s, err := i.source()
	if err != nil {
		return upgrade.Image{}, err
	}
	if i.plain {
		packages = nil
	}
	w := firmware.ForUpgrade(board, version)
	file, err := i.a.fetchOne(ctx, s, i.f, w, packages, i.a.tell())
	if err != nil {
		return upgrade.Image{}, err
	}
	if err := i.a.structure(file, w, 0); err != nil {
		return upgrade.Image{}, err
	}
	data, err := store.Read(file.Path)
	if err != nil {
		return upgrade.Image{}, err
	}
	return upgrade.Image{Name: file.Name, Version: version, Bytes: data, Packages: file.Packages, Vouched: file.Signed.String()}, nil
}
