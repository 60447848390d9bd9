package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/heimweg/heimweg/internal/blueprint"
	"github.com/heimweg/heimweg/internal/event"
	"github.com/heimweg/heimweg/internal/fault"
	"github.com/heimweg/heimweg/internal/firmware"
	"github.com/heimweg/heimweg/internal/image"
	"github.com/heimweg/heimweg/internal/openwrt"
	"github.com/heimweg/heimweg/internal/plan"
	"github.com/heimweg/heimweg/internal/router"
)

// addFolder defines the flags of a command that takes packages from a folder, and
// fetches nothing else.
func (f *firmwareFlags) addFolder(a *app, c *cobra.Command) {
	c.Flags().StringVar(&f.mirror, "mirror", a.Getenv("HEIMWEG_MIRROR"), "folder made by heimweg firmware bundle, to take missing packages from (default: the router fetches them from the internet)")
	c.Flags().StringSliceVar(&f.keys, "key", nil, "file with a public key (usign or OpenPGP) to trust beside OpenWrt's")
}

// folder is the mirror when it is a folder, else "".
func (f firmwareFlags) folder() string {
	if strings.Contains(f.mirror, "://") {
		return ""
	}
	return f.mirror
}

// fromBundle gets the packages of a plan from a folder, where one was named, and
// says so in the plan: the router needs no internet for them.
func (a *app) fromBundle(ctx context.Context, v *visit, p *plan.Plan) error {
	names, folder := p.Packages(), a.packages.folder()
	if folder == "" || len(names) == 0 || len(p.Blocked) > 0 {
		return nil
	}
	board := v.Snapshot().Board
	s, err := a.source(a.packages)
	if err != nil {
		return err
	}
	var files []firmware.PackageFile
	t, err := s.Target(ctx, board.Release.Version, board.Release.Target)
	if err == nil {
		files, err = s.PackageFiles(ctx, t, names, nil)
	}
	if err != nil {
		return bundleLacks(err, folder, board, names)
	}
	v.request.Files = nil
	var size int64
	for _, f := range files {
		v.request.Files = append(v.request.Files, openwrt.PackageFile{Name: f.FileName(), Data: f.Data})
		size += f.Size
	}
	p.Notes = append(p.Notes, blueprint.Note{Code: "packages-from",
		Text: fmt.Sprintf("packages come from %s, checked against its signed lists: %d files, %d kB; the router needs no internet for them", folder, len(files), (size+1023)/1024)})
	return nil
}

// bundleLacks says what to do when a bundle does not have what the router needs.
func bundleLacks(err error, folder string, b router.Board, names []string) error {
	var format *firmware.FeedFormatError
	var missing *firmware.MissingError
	switch {
	case errors.As(err, &format):
		return fault.New("bundle-apk", "the packages of OpenWrt %s cannot come from a folder", b.Release.Version).From(err).
			Saw("the router lacks %s", strings.Join(names, ", ")).
			Because("heimweg cannot check the signature of their list, and a package that nobody vouches for is not installed").
			Do("plug the home router's WAN port into the ISP router and run this command without --mirror: the router checks and installs them itself")
	case errors.As(err, &missing):
		f := fault.New("bundle-lacks", "%s does not have the packages for this router", folder).From(err).
			Saw("the router runs OpenWrt %s for %s and lacks %s", b.Release.Version, b.Release.Target, strings.Join(names, ", "))
		known, ok := image.BoardNamed(b.Name)
		if !ok {
			return f.Do("plug the home router's WAN port into the ISP router and run this command without --mirror")
		}
		return f.Do("where there is internet: heimweg firmware bundle %s --release %s --packages %s -o %s",
			known.Short(), b.Release.Version, strings.Join(names, ","), folder)
	}
	return firmware.Explain(err)
}

func (a *app) firmwareBundle() *cobra.Command {
	var f firmwareFlags
	var out string
	var packages []string
	var plain bool
	c := &cobra.Command{
		Use: "bundle BOARD…", Short: "images and packages in a folder, for an evening without internet", Args: cobra.MinimumNArgs(1),
		Long: `bundle makes a folder that holds the images for boards and the packages for the tunnel,
with the signed lists that vouch for them. Put it on a USB stick and name it with
--mirror FOLDER wherever files are fetched; they are checked there like those from
the internet.

OpenWrt's image builder is asked for images that hold the packages already, so that
nothing has to be installed on the router afterwards. It learns the boards, the release
and the packages' names. Nobody signs such an image: it is used without asking on the
computer that fetched it, elsewhere with --accept-risk=unverified-firmware only. When
the builder cannot, or with --plain, the router gets the plain image and then the
packages from the folder. OpenWrt 25.12 and newer need the builder's image or, for the
packages, internet.`,
		Example: "  heimweg firmware bundle 4040 -o stick\n  heimweg firmware bundle 4040 7530 --release 24.10.8 -o stick",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.bundle(cmd.Context(), f, args, packages, out, plain)
		},
	}
	f.add(a, c, true)
	c.Flags().StringVarP(&out, "output", "o", "", "folder to make or complete")
	c.Flags().StringSliceVar(&packages, "packages", nil, "packages to take along, with what they need (default: the tunnel's)")
	c.Flags().BoolVar(&plain, "plain", false, "do not ask the image builder")
	c.Flags().StringVar(&f.builder, "builder", a.Getenv("HEIMWEG_BUILDER"), "image builder to ask (default: "+firmware.OfficialBuilder+")")
	return c
}

func (a *app) bundle(ctx context.Context, f firmwareFlags, names, packages []string, out string, plain bool) error {
	if out == "" {
		return fault.NewUsage("no-output", "it is not said where the bundle shall lie").Do("heimweg firmware bundle %s -o FOLDER", strings.Join(names, " "))
	}
	var boards []image.Board
	for _, n := range names {
		b, _, err := boardOf(n)
		if err != nil {
			return err
		}
		boards = append(boards, b)
	}
	s, err := a.source(f)
	if err != nil {
		return err
	}
	tell := a.tell()
	version, err := a.release(ctx, s, f.release, tell)
	if err != nil {
		return err
	}
	if len(packages) == 0 {
		packages = tunnelPackages(version)
	}
	end := tell.Stage("bundle", "the files of OpenWrt "+version)
	b, err := s.Bundle(ctx, out, version, boards, packages, a.Now(), func(p firmware.Progress) { bytesOf(tell, "bundle", p.Name)(p) })
	end(err, fmt.Sprintf("OpenWrt %s: %d images, %d packages, signed lists", version, len(b.Images), len(b.Packages)))
	if err != nil {
		return firmware.Explain(err)
	}
	if !plain {
		if err := a.keepBuilt(ctx, s, f, out, &b, boards, packages, tell); err != nil {
			return err
		}
	}
	if a.json {
		return a.printJSON(b)
	}
	if b.NoPackages != "" && len(b.Built) == 0 {
		tell.Note("bundle", b.NoPackages+": with these images the router itself needs internet to install "+strings.Join(packages, ", ")+
			"; try again later without --plain, or take --release 24.10.x, whose packages can be taken along")
	}
	fmt.Fprintf(a.Out, "%s\n", out)
	a.sayf("Without internet: add --mirror %s, or set HEIMWEG_MIRROR=%s", out, out)
	return nil
}

// tunnelPackages are those that the tunnel needs on a release.
func tunnelPackages(version string) []string {
	line, _ := router.ParseLine(version)
	var out []string
	for _, p := range blueprint.TunnelPackages(line) {
		out = append(out, p.Name)
	}
	return out
}

// isBuilt reports whether the image builder makes images of this kind.
func isBuilt(w firmware.Want) bool {
	return w.Type == firmware.TypeEVA || w.Type == firmware.TypeSysupgrade
}

// keepBuilt asks the image builder for the boards' images with the packages inside
// and puts them into the bundle. One that cannot be had is no failure: the plain
// images are there.
func (a *app) keepBuilt(ctx context.Context, s *firmware.Source, f firmwareFlags, out string, b *firmware.Bundle, boards []image.Board, packages []string, tell event.Tell) error {
	var files []firmware.File
	for _, board := range boards {
		wants := firmware.ForFlash(board, b.Version, 0)
		if up := firmware.ForUpgrade(board, b.Version); !slices.Contains(wants, up) {
			wants = append(wants, up)
		}
		for _, w := range wants {
			if !isBuilt(w) {
				continue
			}
			file, err := a.build(ctx, f, w, packages, tell)
			if why, plain := firmware.PlainInstead(err); plain && ctx.Err() == nil {
				tell.Note("builder", why+"; the bundle has the plain images")
				return firmware.Explain(s.KeepBuilt(out, b, files))
			}
			if err == nil {
				err = a.structure(file, w, 0)
			}
			if err != nil {
				return firmware.Explain(err)
			}
			files = append(files, file)
		}
	}
	return firmware.Explain(s.KeepBuilt(out, b, files))
}

// builtBefore takes an image with packages inside from a bundle; a File without Path
// when there is none that may be taken.
func (a *app) builtBefore(s *firmware.Source, w firmware.Want, with []string, tell event.Tell) (firmware.File, error) {
	file, err := s.Built(w, with)
	var missing *firmware.MissingError
	var doubt *firmware.TrustError
	switch {
	case errors.As(err, &missing):
		return firmware.File{}, nil
	case errors.As(err, &doubt) && doubt.Doubt == firmware.Unsigned:
		tell.Note("builder", "the image with "+strings.Join(with, ", ")+" in this folder is not signed, and another computer fetched it; taking the plain image (--accept-risk="+riskUnverified+" takes it)")
		return firmware.File{}, nil
	case err == nil:
		tell.Note("builder", fmt.Sprintf("%s with %s inside, %s", file.Name, strings.Join(file.Packages, ", "), file.Signed))
	}
	return file, firmware.Explain(err)
}
