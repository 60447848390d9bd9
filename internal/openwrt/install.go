package openwrt

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// Installation asks for packages.
type Installation struct {
	ID       string
	Packages []string // in order, only what is missing
	// Files are the packages themselves with all that they need, for a router without
	// internet; nil: the router asks its feeds. opkg reads all files before it
	// installs the first, checks what each depends on, the kernel's build too, and
	// passes over what is there; no list vouches for a file that is given by hand, so
	// they must have been checked (libopkg, opkg_prepare_url_for_install).
	Files []PackageFile
	// WireGuard: netifd shall know the protocol afterwards.
	WireGuard bool
}

// A PackageFile is an .ipk.
type PackageFile struct {
	Name string // "wireguard-tools_1.0.20210914-r4_arm_cortex-a7_neon-vfpv4.ipk"
	Data []byte
}

// PackageTrouble says why packages could not be installed.
type PackageTrouble int

const (
	// TroubleUnknown: a text that we do not know; Said has it.
	TroubleUnknown PackageTrouble = iota
	// TroubleSpace: the flash is too small.
	TroubleSpace
	// TroubleKernel: kernel modules of the feed are for another build than the
	// one that runs (openwrt/openwrt#12126).
	TroubleKernel
	// TroubleFeed: the package lists or files cannot be fetched.
	TroubleFeed
	// TroubleLocked: another package manager, such as LuCI's page, is at work.
	TroubleLocked
	// TroubleNoSuch: no such package in the feeds.
	TroubleNoSuch
	// TroubleSignature: the lists' signature does not fit.
	TroubleSignature
	// TroubleDependency: something it needs cannot be had.
	TroubleDependency
)

// PackageError is a package manager's refusal.
type PackageError struct {
	Trouble PackageTrouble
	Package string // which one, if the manager said so
	NeedKB  int64  // TroubleSpace: what it needs, if known
	HaveKB  int64
	Said    string // the deciding line, as the manager wrote it
}

func (e *PackageError) Error() string {
	return fmt.Sprintf("installing %s: %s", e.Package, e.Said)
}

// Install installs packages and teaches netifd the WireGuard protocol, in one
// round trip. It is never run inside a guarded window: package scripts restart
// services.
//
// Files lie in the router's RAM meanwhile.
//
// Errors: *PackageError, *Refusal ("noram" when the RAM is too small for Files),
// those of the shell.
func Install(ctx context.Context, sh Shell, in Installation) error {
	vars := env{"ID": in.ID, "LOCKSECONDS": seconds(lockAge), "PACKAGES": strings.Join(in.Packages, " "), "WIREGUARD": ""}
	if in.WireGuard {
		vars["WIREGUARD"] = "yes"
	}
	stdin := in.files(vars)
	ps, err := run(ctx, sh, vars, "installs", "installed", stdin, "install.sh")
	if err != nil {
		return err
	}
	inst, ran := ps["install"]
	if !ran || inst.exit == 0 {
		return nil
	}
	// A feed that cannot be fetched is the deeper reason for "no such package".
	if up := ps["update"]; up.exit != 0 {
		if e := packageError(up.text()); e.Trouble == TroubleFeed || e.Trouble == TroubleSignature || e.Trouble == TroubleLocked {
			return e
		}
	}
	return packageError(inst.text())
}

// files puts the packages into an archive for standard input.
func (in Installation) files(vars env) []byte {
	vars["FILES"], vars["TOTAL"] = "", "0"
	if len(in.Files) == 0 {
		return nil
	}
	var names []string
	total, files := 0, map[string][]byte{}
	for _, f := range in.Files {
		names = append(names, f.Name)
		files[f.Name] = f.Data
		total += len(f.Data)
	}
	vars["FILES"], vars["TOTAL"] = strings.Join(names, " "), strconv.Itoa(total)
	return archive(files)
}

// packageTexts are what opkg (libopkg) and apk 3.0.5 say, in the order in which
// they decide: the deeper reason first. Sources: facts/openwrt.md 7.3 and 7.4.
var packageTexts = []struct {
	re      *regexp.Regexp
	trouble PackageTrouble
}{
	{regexp.MustCompile(`Only have (?P<have>\d+)kb available on filesystem \S+, pkg (?P<pkg>\S+) needs (?P<need>\d+)`), TroubleSpace},
	{regexp.MustCompile(`(?i)no space left on device`), TroubleSpace},
	{regexp.MustCompile(`(?i)could not lock|unable to lock database`), TroubleLocked},
	{regexp.MustCompile(`(?i)Signature check failed|UNTRUSTED signature|BAD signature`), TroubleSignature},
	{regexp.MustCompile(`Cannot satisfy the following dependencies for (?P<pkg>kmod-\S+?):`), TroubleKernel},
	{regexp.MustCompile(`breaks: (?P<pkg>kmod-[^\s\[]+)\[kernel=`), TroubleKernel},
	{regexp.MustCompile(`Failed to download the package list from (?P<pkg>\S+)`), TroubleFeed},
	{regexp.MustCompile(`Failed to download (?P<pkg>\S+), wget returned`), TroubleFeed},
	{regexp.MustCompile(`(?i)remote server returned error|network error|temporary error|unexpected end of file|WARNING: (?:updating|opening) \S*https?://`), TroubleFeed},
	{regexp.MustCompile(`Cannot satisfy the following dependencies for (?P<pkg>\S+?):`), TroubleDependency},
	{regexp.MustCompile(`(?P<pkg>\S+) \(no such package\):`), TroubleNoSuch},
	{regexp.MustCompile(`Unknown package '(?P<pkg>[^']+)'`), TroubleNoSuch},
}

// opkgFunction is what opkg puts before a sentence, such as "opkg_install_cmd: ".
var opkgFunction = regexp.MustCompile(`^[a-z]+(_[a-z]+)+: `)

// sentence is a manager's line without its bullet and the name of the function.
func sentence(l string) string {
	return opkgFunction.ReplaceAllString(strings.Trim(strings.TrimSpace(l), "*. "), "")
}

func packageError(said string) *PackageError {
	lines := strings.Split(said, "\n")
	for _, t := range packageTexts {
		for _, l := range lines {
			m := t.re.FindStringSubmatch(l)
			if m == nil {
				continue
			}
			e := &PackageError{Trouble: t.trouble, Said: sentence(l)}
			for i, n := range t.re.SubexpNames() {
				switch n {
				case "pkg":
					e.Package = m[i]
				case "need":
					e.NeedKB, _ = strconv.ParseInt(m[i], 10, 64)
				case "have":
					e.HaveKB, _ = strconv.ParseInt(m[i], 10, 64)
				}
			}
			return e
		}
	}
	last := ""
	for _, l := range lines {
		if l = sentence(l); l != "" {
			last = l
		}
	}
	return &PackageError{Trouble: TroubleUnknown, Said: clip(last, 200)}
}
