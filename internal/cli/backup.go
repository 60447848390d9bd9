package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/crypto/ssh"

	"github.com/heimweg/heimweg/internal/apply"
	"github.com/heimweg/heimweg/internal/backup"
	"github.com/heimweg/heimweg/internal/fault"
	"github.com/heimweg/heimweg/internal/home"
	"github.com/heimweg/heimweg/internal/restore"
	"github.com/heimweg/heimweg/internal/router"
	"github.com/heimweg/heimweg/internal/seal"
	"github.com/heimweg/heimweg/internal/shell"
	"github.com/heimweg/heimweg/internal/store"
	"github.com/heimweg/heimweg/internal/uci"
	"github.com/heimweg/heimweg/internal/view"
)

// Risks of restore, by name.
const (
	riskReplaces = "replaces-settings"
	riskNewKey   = "new-host-key"
)

// keyring says how backup files are locked and opened.
type keyring struct {
	passphrase string   // file
	recipients []string // keys, or files with keys
	open       []string // files with identities
}

func (k *keyring) lockFlags(c *cobra.Command) {
	c.Flags().StringVar(&k.passphrase, "passphrase-file", "", "file whose first line is the passphrase")
	c.Flags().StringSliceVar(&k.recipients, "recipient", nil, "public key that can open the backup: age1…, ssh-ed25519 …, or a file with such keys")
}

func (k *keyring) openFlags(c *cobra.Command) {
	c.Flags().StringVar(&k.passphrase, "passphrase-file", "", "file whose first line is the passphrase")
	c.Flags().StringSliceVar(&k.open, "open-with", nil, "file with an age or SSH private key that opens the backup (default: heimweg's own key)")
}

func (a *app) backupCommand() *cobra.Command {
	var k keyring
	var out string
	c := &cobra.Command{
		Use: "backup", Short: "keep everything that makes the gateway in one encrypted file", Args: cobra.NoArgs,
		Long: `backup reads from the home router everything that makes the gateway: its settings, the
tunnel's and SSH's keys, who may log in, root's password as a hash, and which packages
there are, and writes it with home.toml into one file, encrypted with age
(https://age-encryption.org). The file is new, mode 0600, and overwrites nothing.

It is locked with a passphrase, which is asked for twice, or to public keys. heimweg
restore puts it back, on this box or on another. The age program opens it, too.`,
		Example: `  heimweg backup
  heimweg backup -o gateway.age --passphrase-file secret.txt
  heimweg backup --recipient ~/.ssh/id_ed25519.pub`,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.backup(cmd.Context(), k, out) },
	}
	k.lockFlags(c)
	c.Flags().StringVarP(&out, "output", "o", "", "file to write (default: named after the router and the day; - for standard output)")
	return c
}

func (a *app) backup(ctx context.Context, k keyring, out string) error {
	f, err := a.readHome()
	if err != nil {
		return err
	}
	lock, err := a.lockWith(k)
	if err != nil {
		return err
	}
	v, err := a.visit(ctx, f)
	if err != nil {
		return err
	}
	defer v.Close()
	end := a.tell().Stage("backup", "reading everything that makes the gateway")
	b, err := restore.Take(ctx, v.Session, string(f.Text()), Version, a.Now())
	end(err, view.BackupLine(b))
	if err != nil {
		return err
	}
	file, err := sealed(b, lock)
	if err != nil {
		return err
	}
	if out == "-" {
		_, err := a.Out.Write(file)
		return err
	}
	if out == "" {
		out = fmt.Sprintf("%s-%s.age", fileName(b.Board.Hostname), a.Now().Format("2006-01-02"))
	}
	if err := store.Create(out, file, 0o600); err != nil {
		return fileExists(out, err)
	}
	if a.json {
		return a.printJSON(view.BackupOf(b, out))
	}
	fmt.Fprintln(a.Out, out)
	a.sayf("  next  keep it where the router is not; heimweg restore %s puts it back", out)
	return nil
}

func sealed(b backup.Backup, lock seal.Lock) ([]byte, error) {
	plain, err := backup.Encode(b)
	if err != nil {
		return nil, fault.New("backup-garbled", "what the router gave cannot be kept").Saw("%s", err).From(err).
			Do("take what is too large off its keep list (/etc/sysupgrade.conf), then run this command again")
	}
	defer clear(plain)
	return lock.Seal(plain)
}

// fileName makes a name for a file out of a router's.
func fileName(name string) string {
	name = strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '-' || r == '_' {
			return r
		}
		return '-'
	}, name)
	if strings.Trim(name, ".-") == "" {
		return "gateway"
	}
	return strings.TrimLeft(name, ".-")
}

// lockWith chooses how a new backup is locked.
func (a *app) lockWith(k keyring) (seal.Lock, error) {
	switch {
	case len(k.recipients) > 0 && k.passphrase != "":
		return seal.Lock{}, fault.NewUsage("two-locks", "a backup is locked with a passphrase or to keys, not both").
			Do("leave --passphrase-file or --recipient away")
	case len(k.recipients) > 0:
		keys, err := recipients(k.recipients)
		if err != nil {
			return seal.Lock{}, err
		}
		return sealFault(seal.Recipients(keys...))
	case k.passphrase != "":
		p, err := passphraseFile(k.passphrase)
		if err != nil {
			return seal.Lock{}, err
		}
		return sealFault(seal.Passphrase(p))
	case !a.Terminal.IsTerminal():
		return seal.Lock{}, needsPerson("a passphrase for the backup", "--passphrase-file FILE, or --recipient KEY")
	}
	p, err := a.secret("A passphrase for the backup; without it nobody can open it:")
	if err != nil {
		return seal.Lock{}, err
	}
	again, err := a.secret("The same once more:")
	if err != nil {
		return seal.Lock{}, err
	}
	if p != again {
		return seal.Lock{}, fault.NewUsage("passphrase-differs", "the two passphrases differ").Because("nothing was done").Do("run the same command again")
	}
	return sealFault(seal.Passphrase(p))
}

func sealFault[T any](v T, err error) (T, error) {
	var k *seal.KeyError
	if errors.As(err, &k) {
		return v, fault.NewUsage("bad-key", "%s", k).From(err).Do("correct it and run the same command again")
	}
	return v, err
}

// recipients are public keys as they are, or those in files.
func recipients(list []string) ([]string, error) {
	var out []string
	for _, r := range list {
		if strings.HasPrefix(r, "age1") || strings.HasPrefix(r, "ssh-") || strings.HasPrefix(r, "AGE-") {
			out = append(out, r)
			continue
		}
		text, err := store.Read(r)
		if err != nil {
			return nil, fault.NewUsage("no-key-file", "%s is neither a public key nor a file with some", r).Saw("%s", err).
				Do("name a key that begins with age1 or ssh-ed25519, or a file such as ~/.ssh/id_ed25519.pub")
		}
		for l := range strings.Lines(string(text)) {
			if l = strings.TrimSpace(l); l != "" && !strings.HasPrefix(l, "#") {
				out = append(out, l)
			}
		}
	}
	return out, nil
}

func passphraseFile(name string) (string, error) {
	text, err := store.Read(name)
	if err != nil {
		return "", fault.NewUsage("no-passphrase", "the passphrase's file cannot be read").Saw("%s", err).Do("name a file that is there").From(err)
	}
	first, _, _ := bytes.Cut(text, []byte("\n"))
	p := strings.TrimSuffix(string(first), "\r")
	if p == "" {
		return "", fault.NewUsage("no-passphrase", "%s has no first line", name).Do("write the passphrase into its first line")
	}
	return p, nil
}

// openBackup reads a backup file, whatever locks it.
func (a *app) openBackup(path string, k keyring) (backup.Backup, error) {
	data, err := store.Read(path)
	if err != nil {
		return backup.Backup{}, fault.NewUsage("no-backup-file", "the backup %s cannot be read", path).Saw("%s", err).Do("name a file that is there").From(err)
	}
	plain := data
	if kind := seal.KindOf(data); kind != seal.Open {
		opener, err := a.opener(kind, k)
		if err != nil {
			return backup.Backup{}, err
		}
		plain, err = opener.Open(data)
		switch {
		case errors.Is(err, seal.ErrNoMatch) && kind == seal.ByPassphrase:
			return backup.Backup{}, fault.New("wrong-passphrase", "this passphrase does not open %s", path).Do("run the same command again with the right one")
		case errors.Is(err, seal.ErrNoMatch):
			return backup.Backup{}, fault.New("no-key", "no key here opens %s", path).
				Do("name the private key that belongs to one of its recipients: --open-with FILE")
		case err != nil:
			return backup.Backup{}, fault.New("backup-damaged", "%s is damaged: it was cut off or changed", path).From(err).Do("take another copy of it")
		}
	}
	b, err := backup.Parse(plain)
	if err != nil {
		return b, fault.New("not-a-backup", "%s is no backup that heimweg reads", path).Saw("%s", err).From(err).
			Do("name a file that heimweg backup wrote, or an archive of sysupgrade -b (.tar.gz)")
	}
	return b, nil
}

func (a *app) opener(kind seal.Kind, k keyring) (seal.Opener, error) {
	if kind == seal.ByPassphrase {
		p, err := "", error(nil)
		switch {
		case k.passphrase != "":
			p, err = passphraseFile(k.passphrase)
		case a.Terminal.IsTerminal():
			p, err = a.secret("The backup's passphrase:")
		default:
			err = needsPerson("the backup's passphrase", "--passphrase-file FILE")
		}
		if err != nil {
			return seal.Opener{}, err
		}
		return sealFault(seal.WithPassphrase(p))
	}
	own, err := a.loginKey()
	if err != nil {
		return seal.Opener{}, err
	}
	all, err := seal.WithIdentity(own.Reveal())
	if err != nil {
		return all, err
	}
	for _, name := range k.open {
		text, err := store.Read(name)
		if err != nil {
			return all, fault.NewUsage("no-key-file", "the key %s cannot be read", name).Saw("%s", err).Do("name a file that is there").From(err)
		}
		o, err := sealFault(seal.WithIdentity(text))
		if err != nil {
			return all, err
		}
		all = all.Or(o)
	}
	return all, nil
}

func (a *app) restoreCommand() *cobra.Command {
	var k keyring
	var o backup.Options
	c := &cobra.Command{
		Use: "restore FILE", Short: "put a gateway back from a backup, onto this box or another", Args: cobra.ExactArgs(1),
		Long: `restore puts back what heimweg backup kept: SSH's host keys and who may log in, root's
password, the tunnel with its old key, so that every device comes home with the
configuration it has, your own settings as far as they fit the box, and packages.

The box may be a fresh one of another model or release. What differs there is drawn
anew from home.toml or mapped, and what does not fit is left out and named, before
anything is done. Everything happens under the same guard as heimweg apply.

Archives of sysupgrade -b (.tar.gz) are read, too; home.toml has to be here then.`,
		Example: `  heimweg restore gateway-2026-11-21.age
  heimweg restore gateway.age --router 192.168.1.1 --accept-risk=new-host-key
  heimweg restore backup-OpenWrt.tar.gz`,
		RunE: func(cmd *cobra.Command, args []string) error { return a.restore(cmd.Context(), args[0], k, o) },
	}
	k.openFlags(c)
	c.Flags().StringVar(&o.WAN, "wan-port", "", "port for the cable to the ISP router, on a box without a WAN port (default: its last LAN port)")
	return c
}

func (a *app) restore(ctx context.Context, path string, k keyring, o backup.Options) error {
	unlock, err := a.lockHome()
	if err != nil {
		return err
	}
	defer unlock()
	b, err := a.openBackup(path, k)
	if err != nil {
		return err
	}
	f, fromBackup, err := a.homeOf(b)
	if err != nil {
		return err
	}
	dir, err := a.folder()
	if err != nil {
		return err
	}
	pins := &newcomer{File: shell.File{Path: filepath.Join(dir, "known_routers")}, met: map[string]ssh.PublicKey{}}
	a.pins = pins
	defer func() { a.pins = nil }()
	v, err := a.meet(ctx, f, pins)
	if err != nil {
		return err
	}
	defer func() { v.Close() }()
	p, err := restore.Propose(ctx, v.Session, b, withoutIdentity(v.request, b), o)
	if err != nil {
		return err
	}
	if err := a.agreeToRestore(ctx, v, b, p); err != nil {
		return err
	}
	if v, err = a.identify(ctx, v, b, f); err != nil {
		return err
	}
	if fromBackup {
		if err := a.writeHome(f); err != nil {
			return err
		}
	}
	return a.putBack(ctx, v, b, o)
}

// homeOf is home.toml: the one here, else the backup's.
func (a *app) homeOf(b backup.Backup) (f *home.File, fromBackup bool, err error) {
	if _, err := os.Lstat(a.homePath); err == nil {
		f, err := a.readHome()
		if err == nil && b.Home != "" && b.Home != string(f.Text()) {
			a.tell().Note("home", "the backup holds another home.toml; the one here is used")
		}
		return f, false, err
	}
	if b.Home == "" {
		return nil, false, fault.NewUsage("no-home", "there is no %s here, and the backup holds none", a.homePath).
			Do("put yours here, or write one for the box that is to be set up: heimweg init")
	}
	f, err = home.Parse(a.homePath, []byte(b.Home))
	return f, true, err
}

// newcomer is a store of host keys that pins nothing yet: a box that is being set up
// will show another key in a moment, the one it had before.
type newcomer struct {
	shell.File
	met    map[string]ssh.PublicKey
	settle bool // from now on keys are remembered for good
}

func (n *newcomer) Known(name string) (ssh.PublicKey, error) {
	if k, ok := n.met[name]; ok && !n.settle {
		return k, nil
	}
	return n.File.Known(name)
}

func (n *newcomer) Pin(name string, k ssh.PublicKey) error {
	if n.settle {
		return n.File.Pin(name, k)
	}
	n.met[name] = k
	return nil
}

// meet opens a box that may be a new one at a known address.
func (a *app) meet(ctx context.Context, f *home.File, pins *newcomer) (*visit, error) {
	v, err := a.visit(ctx, f)
	var changed *shell.HostKeyError
	if !errors.As(err, &changed) {
		return v, err
	}
	a.sayf("The box at %s shows another host key than the router that was there, as a new or reset box does.", changed.Addr)
	for _, known := range changed.Known {
		a.sayf("  known  %s", known)
	}
	a.sayf("  now    %s", changed.Seen)
	if !slices.Contains(a.risks, riskNewKey) {
		if !a.Terminal.IsTerminal() {
			return nil, needsPerson("the box shows another host key than the router that was there", "--accept-risk="+riskNewKey)
		}
		got, err := a.ask(ctx, `It will get all keys of the backup. Is it the box in front of you? Type "yes" to go on:`, "", "--accept-risk="+riskNewKey)
		if err != nil {
			return nil, err
		}
		if got != "yes" {
			return nil, nothingDone()
		}
	}
	if err := shell.Accept(pins, changed); err != nil {
		return nil, err
	}
	return a.visit(ctx, f)
}

// withoutIdentity leaves away what comes with the identity: root's password, and
// our key if it is among those that may log in.
func withoutIdentity(r apply.Request, b backup.Backup) apply.Request {
	if b.RootHash().Reveal() != "" {
		r.Access.Password = false
	}
	if f, ok := b.File("/etc/dropbear/authorized_keys"); ok && strings.Contains(f.Text.Reveal(), strings.TrimSpace(r.Access.Key)) {
		r.Access.Key = ""
	}
	return r
}

func (a *app) agreeToRestore(ctx context.Context, v *visit, b backup.Backup, p restore.Proposal) error {
	shown := view.Restore{Backup: view.BackupOf(b, ""), Proposal: p, Board: v.Snapshot().Board}
	if a.json {
		if len(p.Plan.Blocked) > 0 {
			if err := a.printJSON(shown); err != nil {
				return err
			}
		}
	} else {
		view.RestoreText(a.Out, a.style, shown)
	}
	if len(p.Plan.Blocked) > 0 {
		return errExit(fault.ExitFailed)
	}
	if inUse(v.Snapshot()) && !slices.Contains(a.risks, riskReplaces) {
		if !a.Terminal.IsTerminal() {
			return needsPerson("the box is not fresh: settings that are there are replaced by the backup's", "--accept-risk="+riskReplaces)
		}
		a.sayf("This box is not fresh: settings that are there are replaced by the backup's.")
		got, err := a.ask(ctx, `Type "replace" to go on, or pass --accept-risk=`+riskReplaces+":", "", "--accept-risk="+riskReplaces)
		if err != nil {
			return err
		}
		if got != "replace" {
			return nothingDone()
		}
	}
	return a.consent(ctx, p.Plan)
}

// inUse: somebody has set this box up already.
func inUse(s *router.Snapshot) bool {
	if s.RootHash {
		return true
	}
	for _, c := range s.Configs {
		for _, sec := range c.Sections() {
			if router.Ours(c.Name(), sec, s.Written) {
				return true
			}
		}
	}
	return false
}

// identify gives the box back who it was and comes in again through its old host
// key, which is remembered from then on.
func (a *app) identify(ctx context.Context, v *visit, b backup.Backup, f *home.File) (*visit, error) {
	if err := restore.Identify(ctx, v.Shell(), b, a.tell()); err != nil {
		return v, apply.Explain(err, v.Addr())
	}
	pins := a.pins.(*newcomer)
	if pins.met[v.way.Addr] != nil && len(b.Identity()) > 0 {
		restore.WaitForKey(ctx, v.way)
	}
	pins.settle = true
	v.Close()
	next, err := a.visit(ctx, f)
	var other *shell.HostKeyError
	if errors.As(err, &other) {
		// The key that was just put back is another one than the one that somebody
		// else had at this address.
		if err := shell.Accept(pins, other); err != nil {
			return v, err
		}
		next, err = a.visit(ctx, f)
	}
	if err != nil {
		return v, err
	}
	return next, nil
}

func (a *app) putBack(ctx context.Context, v *visit, b backup.Backup, o backup.Options) error {
	p, err := restore.Propose(ctx, v.Session, b, v.request, o)
	if err != nil {
		return err
	}
	if p.Plan.Needs().Password {
		hash, err := a.password(ctx)
		if err != nil {
			return err
		}
		p.Request.PasswordHash = uci.Hidden(hash)
	}
	res, err := restore.Run(ctx, v.Session, p, a.tell())
	if err != nil {
		return err
	}
	if to := v.Moved(); to != "" {
		if err := a.follow(v, to); err != nil {
			return err
		}
	}
	if a.json {
		return a.printJSON(res)
	}
	view.RestoredText(a.Out, a.style, res)
	a.sayf("  next  heimweg verify   lets a test device come home and proves it")
	return nil
}
