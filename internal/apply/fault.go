package apply

import (
	"context"
	"errors"
	"strings"

	"github.com/heimweg/heimweg/internal/fault"
	"github.com/heimweg/heimweg/internal/openwrt"
	"github.com/heimweg/heimweg/internal/shell"
)

// Explain turns what an edge reported into a failure that a person can act on.
// addr is the home router's address as it was dialled. A fault stays as it is.
func Explain(err error, addr string) error {
	if err == nil || fault.Find(err) != nil {
		return err
	}
	if errors.Is(err, context.Canceled) {
		return fault.New("interrupted", "interrupted").Exits(fault.ExitInterrupted).From(err).
			Do("run the same command again; it finishes or takes back what was begun")
	}
	if f := explainShell(err, addr); f != nil {
		return f.From(err)
	}
	if f := explainRouter(err, addr); f != nil {
		return f.From(err)
	}
	return err
}

func explainShell(err error, addr string) *fault.Fault {
	var (
		unreachable *shell.UnreachableError
		auth        *shell.AuthError
		hostKey     *shell.HostKeyError
		lost        *shell.LostError
		notSSH      *shell.NotSSHError
	)
	switch {
	case errors.As(err, &hostKey):
		return fault.New("host-key-changed", "the router at %s shows another host key than before", addr).
			Saw("known  %s (%s)", strings.Join(hostKey.Known, ", "), hostKey.Where).Saw("now    %s", hostKey.Seen).
			Because("after a reflash or a reset this is expected; otherwise something else may be answering at this address").
			Do("if you flashed or reset the box: heimweg trust %s", addr)
	case errors.As(err, &auth) && auth.Broken():
		return fault.New("router-unreachable", "the router at %s broke off in the middle of the login", addr).
			Saw("%v", auth.Cause).
			Do("wait a minute, then run the same command again").Exits(fault.ExitUnreachable)
	case errors.As(err, &auth):
		return fault.New("login-refused", "the router at %s did not let us in", addr).
			Saw("tried %s", strings.Join(auth.Tried, ", ")).
			Do("run the command in a terminal and type root's password, or name a key with --identity")
	case errors.As(err, &notSSH):
		return fault.New("not-ssh", "what answers at %s is not an SSH server", addr).
			Saw("it says %q", notSSH.Banner).
			Do("check the router's address: heimweg init --router ADDRESS").Exits(fault.ExitUnreachable)
	case errors.As(err, &unreachable):
		return fault.New("router-unreachable", "no answer from the home router at %s", addr).
			Saw("%s", unreachable.Why()).
			Do("connect this computer to one of the home router's LAN ports (or its Wi-Fi) and run the same command again").
			Exits(fault.ExitUnreachable)
	case errors.As(err, &lost):
		return fault.New("connection-lost", "the connection to the router at %s was lost", addr).
			Because("what was not confirmed is taken back by the router itself").
			Do("run the same command again").Exits(fault.ExitUnreachable)
	case errors.Is(err, context.DeadlineExceeded):
		return fault.New("router-unreachable", "the home router at %s did not answer in time", addr).
			Do("check that it has power and that this computer is connected to it, then run the same command again").
			Exits(fault.ExitUnreachable)
	}
	return nil
}

func explainRouter(err error, addr string) *fault.Fault {
	var (
		refusal *openwrt.Refusal
		other   *openwrt.NotOpenWrtError
		pkg     *openwrt.PackageError
		garbled *openwrt.GarbledError
		badJSON *openwrt.JSONError
	)
	switch {
	case errors.As(err, &refusal):
		return explainRefusal(refusal)
	case errors.As(err, &pkg):
		return explainPackage(pkg)
	case errors.As(err, &other):
		f := fault.New("not-openwrt", "what answers at %s is not OpenWrt", addr)
		if other.System != "" {
			f.Saw("%s", other.System)
		}
		return f.Do("flash OpenWrt 21.02 or newer first, or name the right router: heimweg init --router ADDRESS")
	case errors.As(err, &garbled), errors.As(err, &badJSON):
		return fault.New("router-garbled", "the router at %s gave an answer that heimweg does not understand", addr).
			Saw("%s", err).
			Do("run the command again with -v and report what it prints; nothing was changed")
	}
	return nil
}

// explainRefusal: every one of these means that nothing was changed or that it
// was taken back.
func explainRefusal(r *openwrt.Refusal) *fault.Fault {
	switch r.Code {
	case "locked":
		return fault.New("router-busy", "another heimweg is at work on this router").
			Saw("run %s", r.Detail).
			Do("let it end, then run this command again; a run that died is forgotten after 4 minutes")
	case "changed":
		return fault.New("router-changed", "the router's settings changed after they were looked at (%s)", r.Detail).
			Because("nothing was written").
			Do("run the same command again; it looks anew")
	case "staged":
		return fault.New("staged-changes", "somebody else's changes to %q wait on the router and are not saved yet", r.Detail).
			Because("saving ours would save theirs too").
			Do("save or discard them in LuCI, or on the router: uci changes; then uci commit or uci revert %s", r.Detail)
	case "pending":
		return fault.New("unfinished-change", "a change of an earlier run is still waiting to be kept or taken back").
			Saw("%s", r.Detail).
			Do("run the same command again in two minutes")
	case "override":
		return fault.New("override-file", "a file in /var/run/uci replaces /etc/config/%s on this router", r.Detail).
			Do("remove it on the router: rm /var/run/uci/%s", r.Detail)
	case "luci":
		return fault.New("luci-at-work", "LuCI is in the middle of applying settings on this router").
			Do("wait 90 s or finish it in the browser, then run this command again")
	case "nospace":
		return fault.New("flash-full", "the router's flash is full: %s could not be written", r.Detail).
			Because("everything is as it was").
			Do("remove a package you do not need on the router, or reflash with an image that has wireguard-tools inside")
	case "noram":
		return fault.New("ram-full", "the router's memory has no room for the packages' files").
			Saw("kB free and needed: %s", r.Detail).
			Do("restart the router and run this command again")
	case "unreadable":
		return fault.New("settings-refused", "the router's own reader refused the new settings").
			Saw("%s", r.Detail).Because("the old settings are back").
			Do("this is heimweg's mistake: please report it with the line above")
	case "firewall":
		return fault.New("firewall-refused", "the router's firewall refused part of the new settings").
			Saw("%s", r.Detail).Because("the old settings are back").
			Do("if the line names a section of yours, mend it on the router and run this command again; else please report it")
	case "nohandler":
		return fault.New("no-wireguard", "wireguard-tools is installed, but the router does not learn the WireGuard protocol").
			Do("restart the router and run this command again; if it stays so, flash the newest image of its release")
	case "late":
		return fault.New("taken-back", "the router took its old settings back before they could be kept").
			Do("run the same command again")
	case "stuck":
		return fault.New("not-taken-back", "the old settings could not be put back").
			Do("unplug the router and plug it in again: it puts them back when it starts")
	default:
		return fault.New("router-refused", "the router could not do its part: %s", r.Code).
			Saw("%s", r.Detail).Do("run the same command again with -v")
	}
}

func explainPackage(e *openwrt.PackageError) *fault.Fault {
	what := e.Package
	if what == "" {
		what = "the packages"
	}
	f := fault.New("install-failed", "%s could not be installed on the router", what)
	switch e.Trouble {
	case openwrt.TroubleSpace:
		f.Code = "flash-full"
		if e.NeedKB > 0 {
			f.Saw("it needs %d kB, the router's flash has %d kB left", e.NeedKB, e.HaveKB)
		}
		f.Do("remove a package you do not need on the router, or reflash with an image that has wireguard-tools inside")
	case openwrt.TroubleKernel:
		f.Code = "kernel-mismatch"
		f.Because("the feed's kernel modules are made for another build of OpenWrt than the one that runs here")
		f.Do("flash the newest image of this release, then run this command again")
	case openwrt.TroubleFeed:
		f.Code = "feed-unreachable"
		f.What = "the router cannot fetch its package lists"
		f.Do("check that the home router itself has internet (its WAN port is connected to the ISP router), then run this command again")
	case openwrt.TroubleLocked:
		f.Code = "installer-busy"
		f.What = "another package manager is at work on the router"
		f.Do("close LuCI's software page, then run this command again")
	case openwrt.TroubleNoSuch:
		f.Code = "no-such-package"
		f.Do("take %s out of packages in home.toml, or correct its name", what)
	case openwrt.TroubleSignature:
		f.Code = "feed-signature"
		f.What = "the package lists that the router fetched are not signed by OpenWrt"
		f.Do("check the router's date and its feeds, then run this command again")
	case openwrt.TroubleDependency:
		f.Do("flash the newest image of this release, then run this command again")
	default:
		f.Do("run on the router what the line above names, or report it")
	}
	return f.Saw("%s", e.Said)
}
