// Package upgrade brings a home router to a newer OpenWrt without losing the way
// home: a backup first, an image that the router itself has checked, settings kept
// where the release can keep them and made anew from home.toml where it cannot,
// packages put back, and everything verified again before it is called done.
//
// It may be interrupted anywhere. A note on the router's keep list says what is
// going on; the next run reads it and goes on where this one stopped. Nothing is
// written before the router has the whole image, found it right, and a person has
// agreed.
//
// Background. `sysupgrade` ends every session, writes the image from RAM and starts
// the box anew. What its keep lists name survives; every installed package is gone
// unless the new image holds it. That is how the author of the third guide lost his
// VPN: its settings stayed and nobody was left to read them. Settings of another
// format (ipq40xx before and after 23.05) are refused; forced, they leave a box
// without network (openwrt#13743). (Facts openwrt.md 7.5 and 8, eva.md 4.5.)
package upgrade

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/heimweg/heimweg/internal/apply"
	"github.com/heimweg/heimweg/internal/backup"
	"github.com/heimweg/heimweg/internal/event"
	"github.com/heimweg/heimweg/internal/fault"
	"github.com/heimweg/heimweg/internal/openwrt"
	"github.com/heimweg/heimweg/internal/plan"
	"github.com/heimweg/heimweg/internal/restore"
	"github.com/heimweg/heimweg/internal/router"
	"github.com/heimweg/heimweg/internal/shell"
	"github.com/heimweg/heimweg/internal/uci"
)

// Deadlines. Each is named in the message when it passes.
const (
	uploadTime = 15 * time.Minute
	judgeTime  = 2 * time.Minute
	// downTime: from the order to the end of the old system. Killing processes and
	// moving to RAM takes some seconds.
	downTime = 3 * time.Minute
	// bootTime: writing and the first start, which on NOR flash formats for minutes.
	bootTime = 12 * time.Minute
	tryPause = time.Second
	tries    = 5 // to go on with an upload after a lost connection
)

// An Image is a sysupgrade image on this computer, whole and checked.
type Image struct {
	Name     string
	Version  string // "25.12.5"
	Bytes    []byte
	Packages []string // inside, beside the default ones
	Vouched  string   // who vouches for it, for people
}

// Images is where images come from.
type Images interface {
	// Releases lists what there is, newest first.
	Releases(ctx context.Context) ([]string, error)
	// Get fetches the image of a release for a board, with packages inside where it
	// can.
	Get(ctx context.Context, version string, board router.Board, packages []string) (Image, error)
}

// An Order is what an upgrade needs.
type Order struct {
	Way     apply.Way
	Look    openwrt.LookFor
	Request apply.Request
	Images  Images
	Image   *Image // a file that a person named, instead of Images
	To      string // a release that a person named
	// HomeText goes into the backup.
	HomeText string
	Program  string
	// Keep keeps the backup and says where. It is called before anything is done.
	Keep func(backup.Backup) (path string, err error)
	// Open opens a backup that an earlier run kept.
	Open func(path string) (backup.Backup, error)
	// Consent shows what is going to happen; an error ends the run.
	Consent func(Plan) error
	Tell    event.Tell
}

// A Plan is what is going to happen, for people.
type Plan struct {
	Model    string   `json:"model"`
	Hostname string   `json:"hostname,omitempty"`
	From     string   `json:"from"`
	To       string   `json:"to"`
	Image    string   `json:"image"`
	Vouched  string   `json:"vouched"`
	Fresh    bool     `json:"fresh,omitempty"`
	Why      string   `json:"why,omitempty"`
	Inside   []string `json:"packages_inside,omitempty"`
	After    []string `json:"packages_after,omitempty"`
	Backup   string   `json:"backup"`
}

// A Result is what was done.
type Result struct {
	restore.Result
	Did      bool   `json:"upgraded"`
	From     string `json:"from,omitempty"`
	To       string `json:"to"`
	Fresh    bool   `json:"fresh,omitempty"`
	Backup   string `json:"backup,omitempty"`
	Newer    string `json:"newer,omitempty"` // what a further upgrade would go to
	Finished bool   `json:"finished,omitempty"`
}

// Do upgrades, or finishes what an earlier run began. s is closed in any case.
func Do(ctx context.Context, s *apply.Session, o Order) (Result, error) {
	r := &run{Order: o, s: s}
	defer func() { r.s.Close() }()
	res, err := r.do(ctx)
	return res, explain(err, r.s.Addr())
}

type run struct {
	Order
	s    *apply.Session
	kept *backup.Backup
}

func (r *run) do(ctx context.Context) (Result, error) {
	a, err := openwrt.Arrive(ctx, r.s.Shell())
	if err != nil {
		return Result{}, err
	}
	if note := a.Note; note != nil {
		switch {
		case a.Same:
			r.Tell.Note("upgrade", "an upgrade to "+note.To+" is going on; waiting for the router")
			return r.after(ctx, *note)
		case r.version() == note.To:
			r.Tell.Note("upgrade", "an earlier run began the upgrade to "+note.To+"; finishing it")
			res, err := r.after(ctx, *note)
			res.Finished = true
			return res, err
		}
		// The power failed before the first byte: this is the old system.
		r.Tell.Note("upgrade", "an earlier upgrade to "+note.To+" never began; the router is as it was")
		if err := openwrt.Forget(ctx, r.s.Shell(), note.Wanted); err != nil {
			return Result{}, err
		}
	}
	return r.fromHere(ctx)
}

func (r *run) version() string { return r.s.Snapshot().Board.Release.Version }

// fromHere is a new upgrade.
func (r *run) fromHere(ctx context.Context) (Result, error) {
	board := r.s.Snapshot().Board
	c, err := r.choose(ctx, board)
	if err != nil {
		return Result{}, err
	}
	if c.Version == "" {
		return Result{To: board.Release.Version}, nil
	}
	if p := r.s.Plan(r.Request); len(p.Blocked) > 0 {
		return Result{}, fault.List(p.Blocked)
	}
	b, err := restore.Take(ctx, r.s, r.HomeText, r.Program, time.Now())
	if err != nil {
		return Result{}, err
	}
	r.kept = &b
	wanted := r.packages(b)
	if r.Image == nil {
		image, err := r.Images.Get(ctx, c.Version, board, wanted)
		if err != nil {
			return Result{}, err
		}
		r.Image = &image
	}
	if err := r.upload(ctx); err != nil {
		return Result{}, err
	}
	fresh, err := r.judge(ctx, c.Fresh)
	if err != nil {
		return Result{}, err
	}
	if fresh && c.Why == "" {
		c.Why = "the router says that its settings do not fit the new release"
	} else if !fresh && c.Fresh {
		c.Why = ""
	}
	path, err := r.Keep(b)
	if err != nil {
		return Result{}, err
	}
	note := openwrt.Note{
		ID: openwrt.NewID(), From: board.Release.Version, To: r.Image.Version, Fresh: fresh, Backup: path,
		Packages: without(wanted, r.Image.Packages), Wanted: wanted,
	}
	if err := r.Consent(Plan{
		Model: board.Model, Hostname: board.Hostname, From: note.From, To: note.To, Image: r.Image.Name, Vouched: r.Image.Vouched,
		Fresh: fresh, Why: c.Why, Inside: r.Image.Packages, After: note.Packages, Backup: path,
	}); err != nil {
		return Result{}, err
	}
	if err := r.commence(ctx, note, b); err != nil {
		return Result{}, err
	}
	res, err := r.after(ctx, note)
	if c.Version != "" && !c.Fresh && c.Why != "" {
		res.Newer = c.Why[strings.LastIndex(c.Why, " ")+1:]
	}
	return res, err
}

// choose finds the release to go to. A file of the release that runs already is
// somebody's own wish; only a snapshot cannot be compared.
func (r *run) choose(ctx context.Context, board router.Board) (Choice, error) {
	if r.Image == nil {
		list, err := r.Images.Releases(ctx)
		if err != nil {
			return Choice{}, err
		}
		return Choose(board, list, r.To)
	}
	v := r.Image.Version
	if _, ok := router.ParseLine(v); !ok || v == board.Release.Version {
		return Choice{Version: v}, nil
	}
	return Choose(board, []string{v}, v)
}

// packages are those that shall be there afterwards: what home.toml means, and
// what somebody asked for by name.
func (r *run) packages(b backup.Backup) []string {
	out := slices.Clone(b.Packages)
	for _, p := range plan.PackagesOf(r.Request.Home, r.s.Snapshot()) {
		if !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	slices.Sort(out)
	return out
}

func without(list, gone []string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(p string) bool { return slices.Contains(gone, p) })
}

// upload brings the image over, however often the connection breaks.
func (r *run) upload(ctx context.Context) (err error) {
	size := int64(len(r.Image.Bytes))
	text := "sending the image to the router's memory"
	end := r.Tell.Stage("upload", text)
	defer func() { end(err, "the router has the whole image") }()
	ctx, cancel := context.WithTimeout(ctx, uploadTime)
	defer cancel()
	start, from := time.Now(), 0
	for n := 0; ; n++ {
		err := openwrt.Upload(ctx, r.s.Shell(), r.Image.Bytes, from, func(done int) {
			rate := float64(done-from) / max(time.Since(start).Seconds(), 0.001)
			r.Tell.Bytes("upload", text, int64(done), size, rate)
		})
		var have *openwrt.UploadedError
		var lost *shell.LostError
		switch {
		case err == nil:
			return nil
		case n >= tries:
			return err
		case errors.As(err, &have) && have.Have <= len(r.Image.Bytes):
			from = have.Have
		case errors.As(err, &lost):
			if err := r.s.Reconnect(ctx); err != nil {
				return err
			}
			from = min(from+1, len(r.Image.Bytes)-1) // not known; the router will say
		default:
			return err
		}
	}
}

// judge lets the router check the image. It may find that settings cannot be kept
// although nothing said so before.
func (r *run) judge(ctx context.Context, fresh bool) (nowFresh bool, err error) {
	end := r.Tell.Stage("check", "the router checks the image")
	defer func() { end(err, "the router says that the image is right for it") }()
	ctx, cancel := context.WithTimeout(ctx, judgeTime)
	defer cancel()
	sum := openwrt.SumOf(r.Image.Bytes)
	err = openwrt.Judge(ctx, r.s.Shell(), sum, !fresh)
	var no *openwrt.ImageError
	if !fresh && errors.As(err, &no) && no.Trouble == openwrt.ImageSettings {
		fresh = true
		err = openwrt.Judge(ctx, r.s.Shell(), sum, false)
	}
	return fresh, err
}

func (r *run) commence(ctx context.Context, note openwrt.Note, b backup.Backup) (err error) {
	u := openwrt.Upgrade{Note: note, Sum: openwrt.SumOf(r.Image.Bytes)}
	if note.Fresh {
		u.Few = r.few(b)
	}
	end := r.Tell.Stage("write", "the router writes the image; do not unplug it")
	defer func() { end(err, "the router went down to write the image; do not unplug it") }()
	ctx, cancel := context.WithTimeout(ctx, downTime)
	defer cancel()
	return openwrt.Commence(ctx, r.s.Shell(), u)
}

// few are the files that stay when everything else is made anew: who the router
// is, who may log in, and where it is in the home LAN, so that it is found again.
func (r *run) few(b backup.Backup) []openwrt.PutFile {
	var out []openwrt.PutFile
	for _, f := range b.Identity() {
		out = append(out, openwrt.PutFile{Name: f.Name, Mode: 0o600, Text: f.Text})
	}
	if f, ok := b.File("/etc/shadow"); ok {
		out = append(out, openwrt.PutFile{Name: f.Name, Mode: 0o600, Text: f.Text})
	}
	return append(out, openwrt.PutFile{Name: "/etc/uci-defaults/90-heimweg-lan", Mode: 0o755, Text: uci.V(lanScript(b, r.s.Snapshot()))})
}

// lanScript is run by the router's first start, before its network: the home LAN
// keeps its address, and a box with one cable stays a guest in the ISP router's LAN
// and hands out no addresses there.
func lanScript(b backup.Backup, snap *router.Snapshot) string {
	var t strings.Builder
	set := func(what, value string) { fmt.Fprintf(&t, "uci set %s=%s\n", what, shell.Quote(value)) }
	lan, _ := snap.Interface("lan")
	for _, p := range lan.Addresses {
		if !p.Addr().Is4() {
			continue
		}
		t.WriteString("uci -q delete network.lan.ipaddr\n")
		set("network.lan.ipaddr", p.Addr().String())
		set("network.lan.netmask", mask(p.Bits()))
		break
	}
	d := b.Config("network")
	if d == nil {
		return t.String()
	}
	if s, ok := d.Section("lan"); ok {
		if v, ok := s.Get("gateway"); ok {
			set("network.lan.gateway", v)
		}
		for _, v := range s.Values("dns") {
			fmt.Fprintf(&t, "uci add_list network.lan.dns=%s\n", shell.Quote(v))
		}
	}
	if d := b.Config("dhcp"); d != nil {
		if s, ok := d.Section("lan"); ok && s.Bool("ignore", false) {
			set("dhcp.lan.ignore", "1")
		}
	}
	t.WriteString("uci commit network\nuci commit dhcp\nexit 0\n")
	return t.String()
}

func mask(bits int) string {
	m := ^uint32(0) << (32 - bits)
	return netip.AddrFrom4([4]byte{byte(m >> 24), byte(m >> 16), byte(m >> 8), byte(m)}).String()
}

// after is everything from the order to the proof: wait, put back, verify.
func (r *run) after(ctx context.Context, note openwrt.Note) (Result, error) {
	res := Result{Did: true, From: note.From, To: note.To, Fresh: note.Fresh, Backup: note.Backup}
	if err := r.await(ctx, note); err != nil {
		return res, err
	}
	if v := r.version(); v != note.To && note.From != note.To && v == note.From {
		openwrt.Forget(ctx, r.s.Shell(), note.Wanted)
		return res, fault.New("not-upgraded", "the router came back with the OpenWrt %s it had before", v).
			Because("the power failed before the first byte was written, or it refused the image; nothing is lost").
			Do("run the same command again")
	}
	if err := restore.WaitUplink(ctx, r.s); err != nil {
		return res, err
	}
	put := r.finish
	if note.Fresh {
		put = r.anew
	}
	got, err := put(ctx, note)
	res.Result = got
	if err != nil {
		return res, err
	}
	if err := r.s.Look(ctx); err != nil {
		return res, err
	}
	if p := r.s.Plan(r.Request); !p.Empty() || len(p.Blocked) > 0 {
		return res, fault.New("not-settled", "after the upgrade the router is not as home.toml wants it").
			Because("the backup is %s", note.Backup).Do("heimweg plan shows what is missing, heimweg apply does it")
	}
	return res, openwrt.Forget(ctx, r.s.Shell(), note.Wanted)
}

// finish: settings were kept; what is missing are packages.
func (r *run) finish(ctx context.Context, note openwrt.Note) (res restore.Result, err error) {
	if p := r.s.Plan(r.Request); len(p.Blocked) > 0 {
		return res, fault.List(p.Blocked)
	} else if !p.Empty() {
		if err := r.s.Run(ctx, p, r.Request); err != nil {
			return res, err
		}
	}
	res.Missing, err = restore.Install(ctx, r.s, without(note.Packages, plan.PackagesOf(r.Request.Home, r.s.Snapshot())), r.Tell)
	return res, err
}

// anew: nothing was kept but who the router is; the backup says the rest.
func (r *run) anew(ctx context.Context, note openwrt.Note) (restore.Result, error) {
	if r.kept == nil {
		b, err := r.Open(note.Backup)
		if err != nil {
			return restore.Result{}, err
		}
		r.kept = &b
	}
	p, err := restore.Propose(ctx, r.s, *r.kept, r.Request, backup.Options{})
	if err != nil {
		return restore.Result{}, err
	}
	p.Packages = note.Packages
	return restore.Run(ctx, r.s, p, r.Tell)
}

// await waits until the router has started again and its first start is through.
func (r *run) await(ctx context.Context, note openwrt.Note) (err error) {
	end := r.Tell.Stage("boot", "waiting for the router: it writes, starts, and settles; some minutes")
	defer func() { end(err, "OpenWrt "+r.version()+" answers, with the host key that is known") }()
	begin := time.Now()
	ctx, cancel := context.WithTimeout(ctx, bootTime)
	defer cancel()
	for {
		settled, same, err := r.arrived(ctx)
		switch {
		case settled:
			return nil
		case err != nil && !apply.WorthRetry(err):
			return r.lostWay(err, note)
		case same && time.Since(begin) > downTime:
			return fault.New("not-down", "the router did not go down to write the image within %s", downTime).
				Do("restart it (unplug it and plug it in again), then run the same command again")
		}
		t := time.NewTimer(tryPause)
		select {
		case <-ctx.Done():
			t.Stop()
			return r.silent(ctx, note)
		case <-t.C:
		}
	}
}

// arrived makes a new connection and asks.
func (r *run) arrived(ctx context.Context) (settled, same bool, err error) {
	s, err := apply.Start(ctx, r.Way, r.Look, nil)
	if err != nil {
		return false, false, err
	}
	a, err := openwrt.Arrive(ctx, s.Shell())
	if err != nil || a.Same || a.Unpacking || s.Snapshot().Space.Temporary {
		s.Close()
		return false, err == nil && a.Same, err
	}
	r.s.Close()
	r.s = s
	return true, false, nil
}

// lostWay: something answers, but it is not the router that we knew.
func (r *run) lostWay(err error, note openwrt.Note) error {
	var key *shell.HostKeyError
	if !errors.As(err, &key) {
		return err
	}
	return fault.New("settings-lost", "the router came back with another host key: its settings did not survive").
		Saw("known  %s", strings.Join(key.Known, ", ")).Saw("now    %s", key.Seen).From(err).
		Because("this happens when the power fails between the image and the settings; the backup has everything").
		Do("heimweg restore %s", note.Backup)
}

func (r *run) silent(ctx context.Context, note openwrt.Note) error {
	if ctx.Err() == context.Canceled {
		return context.Canceled
	}
	return fault.New("not-back", "the router did not come back within %s after the upgrade to %s", bootTime, note.To).
		Because("the backup is %s", note.Backup).
		Do("unplug it, plug it in again, wait five minutes, and run the same command again").
		Do("if it stays silent, its image was cut off: heimweg flash brings it back by cable, then heimweg restore %s", note.Backup).
		Exits(fault.ExitUnreachable)
}

// explain turns what the router said about an image into a failure with a way out.
func explain(err error, addr string) error {
	if err == nil || fault.Find(err) != nil {
		return err
	}
	var room *openwrt.RoomError
	var image *openwrt.ImageError
	var refused *openwrt.Refusal
	switch {
	case errors.As(err, &room):
		return fault.New("memory-full", "the router's memory is too full for the image").
			Saw("the image has %d kB, %d kB are free", room.NeedKB, room.FreeKB).From(err).
			Because("nothing was changed").
			Do("restart the router (reboot), then run the same command again at once")
	case errors.As(err, &image):
		f := fault.New("image-refused", "the router refuses the image").From(err).Because("nothing was changed")
		for _, l := range image.Said {
			f.Saw("%s", l)
		}
		if image.Trouble == openwrt.ImageLayout {
			return f.Do("this release needs the box to be flashed anew: heimweg backup, heimweg flash, heimweg restore")
		}
		return f.Do("heimweg firmware check FILE says what the file is; heimweg upgrade without a file fetches the right one")
	case errors.As(err, &refused) && refused.Code == "damaged":
		return fault.New("upload-damaged", "the image did not arrive whole on the router").From(err).Because("nothing was changed").
			Do("run the same command again")
	case errors.As(err, &refused) && refused.Code == "upgrade":
		return fault.New("upgrade-refused", "the router did not begin the upgrade").Saw("%s", refused.Detail).From(err).
			Because("nothing was changed").Do("run the same command again; if it stays so, restart the router first")
	}
	return apply.Explain(err, addr)
}
