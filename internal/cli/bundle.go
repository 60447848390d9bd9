package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/heimweg/heimweg/internal/blueprint"
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
