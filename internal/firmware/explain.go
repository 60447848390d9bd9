package firmware

import (
	"errors"
	"strings"

	"github.com/heimweg/heimweg/internal/fault"
)

// Explain turns this package's errors into faults; others pass as they are. No flow
// stands between firmware and those who ask for it, so it is said here.
func Explain(err error) error {
	var fetch *FetchError
	var trust *TrustError
	var list *ListError
	var missing *MissingError
	var disk *DiskError
	var build *BuildError
	switch {
	case err == nil || fault.Find(err) != nil:
		return err
	case errors.As(err, &trust):
		return trust.fault().From(err)
	case errors.As(err, &fetch):
		return fetch.fault().From(err)
	case errors.As(err, &missing):
		return missing.fault().From(err)
	case errors.As(err, &disk):
		return disk.fault().From(err)
	case errors.As(err, &list):
		return fault.New("firmware-list", "a list of the download server makes no sense").Saw("%s: %s", list.Name, list.What).
			Do("try again later, or name another mirror with --mirror").From(err)
	case errors.As(err, &build):
		return fault.New("image-builder", "the image builder made no image").Saw("%s", build.Error()).
			Do("leave --with away: the plain image is enough, packages are added afterwards").From(err)
	}
	return err
}

const otherMirror = "try again later, or name another mirror or a folder with --mirror"

func (e *FetchError) fault() *fault.Fault {
	switch e.Trouble {
	case Unreachable:
		return fault.New("mirror-unreachable", "the download server cannot be reached").Saw("%s", e.Error()).
			Do("connect this computer to the internet, or name a folder made by heimweg firmware bundle with --mirror")
	case WebPage:
		f := fault.New("mirror-web-page", "a web page came in place of the file").Saw("%s", e.URL)
		if e.Detail != "" {
			f.Saw("the page is called %q", e.Detail)
		}
		return f.Because("networks of hotels and the like answer like this until one has logged in").
			Do("open any page in a browser, log in to the network, run this command again")
	case NotFound:
		return fault.New("mirror-no-file", "the mirror does not have the file").Saw("%s", e.URL).Do("name another mirror or a folder with --mirror")
	case Redirected:
		return fault.New("mirror-redirect", "the mirror sends us to an address that we do not follow").Saw("%s leads to %s", e.URL, e.Detail).
			Do("name another mirror with --mirror")
	case Lost, Stalled:
		return fault.New("mirror-lost", "the download broke off, several times").Saw("%s", e.Error()).
			Do("run the same command again: it goes on where it stopped")
	case Status, TooLarge:
	}
	return fault.New("mirror-trouble", "the mirror did not give the file").Saw("%s", e.Error()).Do(otherMirror)
}

func (e *TrustError) fault() *fault.Fault {
	switch e.Doubt {
	case Unsigned:
		return fault.New("list-unsigned", "the checksum list has no signature, so nobody vouches for the image").Saw("%s", e.Name).
			Do("name a mirror that has sha256sums.sig, too; or accept it with --accept-risk=unverified-firmware")
	case KeyUnknown:
		f := fault.New("list-key-unknown", "the checksum list is signed with a key that heimweg does not have").Saw("%s", e.Name)
		for _, k := range e.Keys {
			name := pinned[k]
			if name != "" {
				f.Saw("key %s: %s", k, name)
			} else {
				f.Saw("key %s", k)
			}
		}
		return f.Because("OpenWrt changes its keys now and then; whoever would pass off another image has another key, too").
			Do("compare with openwrt.org/docs/guide-user/security/signatures, and if it is OpenWrt's, name the key's file with --key")
	case Forged:
		return fault.New("list-forged", "the signature does not fit the checksum list; nothing of it is used").Saw("%s: %s", e.Name, e.Detail).
			Because("the list was changed on its way, or the mirror is broken").Do("name another mirror with --mirror")
	case NotListed:
		return fault.New("image-not-listed", "the signed list does not name the file").Saw("%s", e.Name).Do("name another mirror with --mirror")
	case WrongRelease:
		return fault.New("wrong-release", "the mirror gave another release than the one asked for").Saw("%s: %s", e.Name, e.Detail).
			Do("name another mirror with --mirror")
	case Damaged:
	}
	return fault.New("image-not-genuine", "the file is not the one that the signed list names; it was thrown away").Saw("%s", e.Name).Saw("%s", e.Detail).
		Because("it was damaged or changed on its way").Do("run the same command again; if it stays, name another mirror with --mirror")
}

func (e *MissingError) fault() *fault.Fault {
	switch {
	case e.Profile == "":
		return fault.NewUsage("no-release", "there is no release %s here", e.Version).Do("heimweg firmware list shows the releases")
	case len(e.Have) > 0:
		return fault.New("no-image", "OpenWrt %s has no %s image of %s", e.Version, e.Type, e.Profile).Saw("it has %s", strings.Join(e.Have, ", ")).
			Do("name another release with --release; heimweg firmware list shows them")
	}
	return fault.New("no-image", "OpenWrt %s has no images of %s", e.Version, e.Profile).
		Do("name another release with --release; heimweg firmware list shows them")
}

func (e *DiskError) fault() *fault.Fault {
	if e.Full {
		f := fault.New("disk-full", "this computer's disk is full").Saw("%s", e.Path)
		if e.Need > 0 {
			f.Saw("%d bytes are needed", e.Need)
		}
		return f.Do("make room and run the same command again: it goes on where it stopped")
	}
	return fault.New("disk", "a file could not be kept on this computer").Saw("%s", e.Error()).Do("see to it that the folder can be written, or name another one with -o")
}
