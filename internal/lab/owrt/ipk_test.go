package owrt

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"fmt"
	"strings"
	"testing"

	"github.com/heimweg/heimweg/internal/router"
)

func packedTar(name string, data []byte) []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	w.WriteHeader(&tar.Header{Name: name, Size: int64(len(data)), Mode: 0o644})
	w.Write(data)
	w.Close()
	z.Close()
	return b.Bytes()
}

func made(name, depends, arch string) string {
	control := fmt.Sprintf("Package: %s\nVersion: 1-r1\nDepends: %s\nArchitecture: %s\n", name, depends, arch)
	return string(packedTar("./control.tar.gz", packedTar("./control", []byte(control))))
}

// opkg takes files without lists and without internet, in any order, and still looks
// at what they need.
func TestPackagesByHand(t *testing.T) {
	kernel := "kernel (= " + releases[router.Line2410].kernel + "-1-" + releases[router.Line2410].vermagic + ")"
	files := map[string]string{
		"/root/top.ipk": made("top", "libc, kmod-low", boxArch), "/root/low.ipk": made("kmod-low", kernel, boxArch),
		"/root/other.ipk": made("kmod-other", "kernel (= 6.6.1-1-x)", boxArch), "/root/mips.ipk": made("mips", "libc", "mips_24kc"),
	}
	for _, c := range []struct {
		name, script string
		feed         Feed
		code         int
		text         string
	}{
		{"any order", "opkg install /root/top.ipk /root/low.ipk && opkg list-installed", Feed{}, 0, "kmod-low - 1-r1"},
		{"a folder's files", "cd /root && opkg install low.ipk top.ipk && opkg install low.ipk", Feed{}, 0, "Package kmod-low (1-r1) installed in root is up to date."},
		{"one is missing", "opkg install /root/top.ipk", Feed{}, 255, "Cannot satisfy the following dependencies for top:"},
		{"another kernel", "opkg install /root/other.ipk", Feed{}, 255, "Cannot satisfy the following dependencies for kmod-other:"},
		{"not an official kernel", "opkg install /root/low.ipk", Feed{KernelMismatch: true}, 255, "Cannot satisfy the following dependencies for kmod-low:"},
		{"another machine", "opkg install /root/mips.ipk", Feed{}, 255, "incompatible with the architectures"},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.feed.Unreachable = true
			inBubble(t, Options{Line: router.Line2410, Feed: c.feed, Files: files}, func(t *testing.T, h *home) {
				out, code := h.sh(t, c.script)
				if code != c.code || !strings.Contains(out, c.text) || strings.Contains(out, "Downloading") {
					t.Errorf("got %d, %q; want %d, %q", code, out, c.code, c.text)
				}
			})
		})
	}
}
