package plan

import (
	"github.com/heimweg/heimweg/internal/blueprint"
	"github.com/heimweg/heimweg/internal/home"
	"github.com/heimweg/heimweg/internal/router"
)

// PackagesOf lists the packages that home.toml means on this router, whether they
// are there or not.
func PackagesOf(h home.Home, s *router.Snapshot) []string {
	site, _ := router.SiteOf(s)
	want, _ := blueprint.Draw(h, site)
	var out []string
	for _, p := range want.Packages {
		out = append(out, p.Name)
	}
	return out
}
