package mirror

import (
	"bytes"
	"strings"
	"testing"

	"github.com/heimweg/heimweg/internal/image"
)

// Every image of every release is whole and right for its board and purpose, by
// the judgement of package image, which shares no code with what made it.
func TestImagesAreRight(t *testing.T) {
	m := New(Options{Kernel: 20_000, Root: 50_000})
	uses := map[string]image.Use{"sysupgrade": image.UpgradeOpenWrt, "eva": image.FlashThroughEVA, "eva-kernel": image.FlashThroughEVA, "eva-filesystem": image.FlashThroughEVA, "kernel": image.RAMBoot, "u-boot": image.RAMBoot}
	n := 0
	for _, version := range m.opt.Releases {
		for _, target := range targetNames {
			for _, i := range imagesOf(version, target) {
				b := m.Image(version, i.profile, i.typ)
				got, err := image.Identify(bytes.NewReader(b), int64(len(b)))
				if err != nil || got.Whole() == image.Bad {
					t.Fatalf("%s: %v %+v", i.name, err, got)
				}
				p := image.Purpose{Use: uses[i.typ], Board: i.profile}
				if i.typ == "eva-filesystem" {
					p.Partition = "mtd0"
				}
				if i.typ == "u-boot" {
					for _, x := range image.Boards() {
						for rev, u := range x.UBoots {
							if u == i.profile {
								p.Board, p.HWRevision = x.Name, rev
							}
						}
					}
					if i.profile == "fritz4040" {
						continue // stands inside the eva image
					}
				}
				if i.typ == "kernel" && target == "ipq40xx/generic" {
					p.Use = image.NetBoot
				}
				if err := image.For(got, p); err != nil {
					t.Errorf("%s: %v", i.name, err)
				}
				if got.Release.Version != "" && !strings.HasPrefix(version, got.Release.Version) {
					t.Errorf("%s: says it is %s", i.name, got.Release.Version)
				}
				n++
			}
		}
	}
	if n < 150 {
		t.Errorf("only %d images", n)
	}
}
