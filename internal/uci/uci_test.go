package uci

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
)

var update = flag.Bool("update", false, "rewrite testdata/sections.txtar")

var corpus = sync.OnceValue(func() []txtar.File {
	a, err := txtar.ParseFile("testdata/routers.txtar")
	if err != nil {
		panic(err)
	}
	return a.Files
})

// TestRouters keeps what the corpus says, in canonical form.
func TestRouters(t *testing.T) {
	var got txtar.Archive
	got.Comment = []byte("The files of routers.txtar in canonical form, written by TestRouters -update.\n")
	for _, f := range corpus() {
		d := mustParse(t, string(f.Data))
		got.Files = append(got.Files, txtar.File{Name: f.Name, Data: Print(d.Sections())})
	}
	const golden = "testdata/sections.txtar"
	text := txtar.Format(&got)
	if *update {
		if err := os.WriteFile(golden, text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(text, want) {
		t.Errorf("the corpus reads differently; if it should, run with -update\n%s", text)
	}
}

const before = `# house rules
config interface 'lan'
	option proto static # by hand
	# a comment inside
	option mtu "1500"
	list dns 1.1.1.1
	list dns '8.8.8.8'

# the phones
config peer
	option key one
config peer
	option key two

config interface 'lan'
	option note 'again'
`

// TestEdits shows what each edit does to the text.
func TestEdits(t *testing.T) {
	for _, c := range []struct {
		name     string
		edit     func(d *Document) error
		old, new string // the part of the text that changes
	}{
		{"a new section", func(d *Document) error { return d.Put(NewSection("zone", "hw_vpn", Opt("name", "vpn"))) },
			"\toption note 'again'\n", "\toption note 'again'\n\nconfig zone 'hw_vpn'\n\toption name 'vpn'\n"},
		{"an option in its place", func(d *Document) error { return d.SetOption("lan", Opt("mtu", "1420")) },
			"\toption mtu \"1500\"\n", "\toption mtu '1420'\n"},
		{"a list in its place", func(d *Document) error { return d.SetOption("lan", List("dns", "9.9.9.9", "1.1.1.1")) },
			"\tlist dns 1.1.1.1\n\tlist dns '8.8.8.8'\n", "\tlist dns '9.9.9.9'\n\tlist dns '1.1.1.1'\n"},
		{"a list becomes an option", func(d *Document) error { return d.SetOption("lan", Opt("dns", "9.9.9.9")) },
			"\tlist dns 1.1.1.1\n\tlist dns '8.8.8.8'\n", "\toption dns '9.9.9.9'\n"},
		{"a new option behind the section's last", func(d *Document) error { return d.SetOption("lan", Opt("x", "1")) },
			"\toption note 'again'\n", "\toption note 'again'\n\toption x '1'\n"},
		{"the same value", func(d *Document) error { return d.SetOption("lan", Opt("proto", "static")) }, "", ""},
		{"an empty value", func(d *Document) error { return d.SetOption("lan", Opt("mtu", "")) },
			"\toption mtu \"1500\"\n", ""},
		{"an option of an unnamed section", func(d *Document) error { return d.SetOption("cfg033511", Opt("key", "3")) },
			"\toption key two\n", "\toption key '3'\n"},
		{"an option taken out", func(d *Document) error { return d.UnsetOption("lan", "proto") },
			"\toption proto static # by hand\n", ""},
		{"an option that is not there", func(d *Document) error { return d.UnsetOption("lan", "none") }, "", ""},
		{"an unnamed section taken out", func(d *Document) error { return d.Delete("cfg023511") },
			"config peer\n\toption key one\n", ""},
		{"all parts of a section taken out", func(d *Document) error { return d.Delete("lan") },
			before, "# house rules\n\n# the phones\nconfig peer\n\toption key one\nconfig peer\n\toption key two\n"},
		{"the same section", func(d *Document) error {
			s, _ := d.Section("lan")
			return d.Put(s)
		}, "", ""},
		{"another section of that name", func(d *Document) error { return d.Put(NewSection("interface", "lan", Opt("proto", "none"))) },
			before, "# house rules\nconfig interface 'lan'\n\toption proto 'none'\n\n# the phones\nconfig peer\n\toption key one\nconfig peer\n\toption key two\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := mustParse(t, before)
			if err := c.edit(d); err != nil {
				t.Fatal(err)
			}
			if want := strings.Replace(before, c.old, c.new, 1); string(d.Text()) != want {
				t.Errorf("got\n%s\nwant\n%s", d.Text(), want)
			}
		})
	}
}

// An option line without a value does nothing, so it is not the place of the
// option that a later line makes.
func TestSetOptionBehindEmptyLine(t *testing.T) {
	d := mustParse(t, "config a b\n\toption x ''\n\toption y 1\n\toption x 2\n\toption z 1\n")
	if err := d.SetOption("b", Opt("x", "3")); err != nil {
		t.Fatal(err)
	}
	if got, want := string(d.Text()), "config a b\n\toption y 1\n\toption x '3'\n\toption z 1\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestRefusals: typed errors, and the text stays.
func TestRefusals(t *testing.T) {
	as := func(target any) func(error) bool { return func(err error) bool { return errors.As(err, target) } }
	for _, c := range []struct {
		name, text string
		edit       func(d *Document) error
		is         func(error) bool
	}{
		{"statements on one line", "config a b ; option x 1\n", func(d *Document) error { return d.Put(NewSection("a", "c")) }, as(new(*ReadOnlyError))},
		{"a rest that is lost", "config a b; option x 1\n", func(d *Document) error { return d.SetOption("b", Opt("x", "1")) }, as(new(*ReadOnlyError))},
		{"a semicolon with nothing behind it", "config a b ;# c\n", func(d *Document) error { return d.Put(NewSection("a", "c")) }, as(new(*ReadOnlyError))},
		{"a backslash at the end", "config a b\n\toption x 1\\", func(d *Document) error { return d.Put(NewSection("a", "c")) }, as(new(*ReadOnlyError))},
		{"no such section", "config a b\n", func(d *Document) error { return d.Delete("c") }, as(new(*NotFoundError))},
		{"no such section to set in", "", func(d *Document) error { return d.SetOption("c", Opt("x", "1")) }, as(new(*NotFoundError))},
		{"a type that breaks the file", "", func(d *Document) error { return d.Put(NewSection("a'b", "c")) }, as(new(*InvalidError))},
		{"a name with a dash", "", func(d *Document) error { return d.Put(NewSection("a", "b-c")) }, as(new(*InvalidError))},
		{"no name", "", func(d *Document) error { return d.Put(NewSection("a", "")) }, as(new(*InvalidError))},
		{"a made-up name", "", func(d *Document) error { return d.Put(NewSection("a", "cfg01b606")) }, as(new(*InvalidError))},
		{"an unnamed section", "config a\n", func(d *Document) error { s, _ := d.Section("cfg01b606"); return d.Put(s) }, as(new(*InvalidError))},
		{"an option twice", "", func(d *Document) error { return d.Put(NewSection("a", "b", Opt("x", "1"), List("x", "2"))) }, as(new(*InvalidError))},
		{"a control character", "config a b\n", func(d *Document) error { return d.SetOption("b", Opt("x", "\x00")) }, as(new(*InvalidError))},
		{"an option name with a dot", "config a b\n", func(d *Document) error { return d.SetOption("b", Opt("x.y", "1")) }, as(new(*InvalidError))},
		{"two sections would melt into one", "config b\nconfig a\n\toption x 1\nconfig a cfg01b606\n", func(d *Document) error {
			if err := d.Delete(AnonymousName(1, "b")); err == nil || len(d.Sections()) != 3 {
				return fmt.Errorf("deleted: %v", err)
			} else {
				return err
			}
		}, as(new(*ReadOnlyError))},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := mustParse(t, c.text)
			err := c.edit(d)
			if !c.is(err) {
				t.Errorf("got %v", err)
			}
			if string(d.Text()) != c.text {
				t.Errorf("the text became %q", d.Text())
			}
		})
	}
	if d, errs := ParseLoose("t", []byte("config a b\n\toption x 1 2\n")); len(errs) != 0 || d.Editable() == nil {
		t.Errorf("a file that only netifd reads: %v, editable %v", errs, d.Editable())
	}
	if _, err := Parse("t", []byte("config a\x00b\n")); err == nil {
		t.Error("a zero byte was read")
	}
}

func TestSection(t *testing.T) {
	s := mustParse(t, "config a b\n\toption on yes\n\toption off 0\n\toption odd maybe\n\tlist l one\n\tlist l 'two words'\n\toption private_key k\n").Sections()[0]
	if got, _ := s.Get("l"); got != "one 'two words'" {
		t.Errorf("Get of a list: %q", got)
	}
	if _, found := s.Get("none"); found || s.Has("none") || !s.Has("l") {
		t.Error("Has or Get finds what is not there, or not what is")
	}
	if got := s.Values("l"); !slices.Equal(got, []string{"one", "two words"}) {
		t.Errorf("Values: %q", got)
	}
	if !s.Bool("on", false) || s.Bool("off", true) || !s.Bool("odd", true) || s.Bool("none", false) {
		t.Error("Bool reads its words wrong")
	}
	if v, _ := s.Value("private_key"); !v.IsSecret() || v.Reveal() != "k" || v.String() == "k" {
		t.Error("a private key is not hidden")
	}
	with := s.With(Opt("off", "1"), Opt("new", "2")).Without("on")
	if got := string(Print([]Section{with})); got != "\nconfig a 'b'\n\toption off '1'\n\toption odd 'maybe'\n\tlist l 'one'\n\tlist l 'two words'\n\toption private_key 'k'\n\toption new '2'\n\n" {
		t.Errorf("printed %q", got)
	}
	if s.Has("new") || !s.Has("on") {
		t.Error("With or Without changed the original")
	}
}

func TestDigest(t *testing.T) {
	base := NewSection("a", "b", Opt("x", "1"), List("l", "1", "2"), HiddenOpt("k", "s"))
	same := []Section{
		base.With(Opt("empty", "")), // UCI cannot hold it
		base.With(Opt("k", "s")),    // hidden or not
		mustParse(t, string(Print([]Section{base}))).Sections()[0],
	}
	for _, s := range same {
		if s.Digest() != base.Digest() || !EqualSections(s, base) {
			t.Errorf("%v differs from %v", s, base)
		}
	}
	other := []Section{
		NewSection("a", "c", base.Options...), NewSection("c", "b", base.Options...),
		base.With(Opt("x", "2")), base.With(List("l", "12")), base.With(List("l", "2", "1")), base.With(List("x", "1")),
		base.With(HiddenOpt("k", "t")), base.Without("x"), base.Without("x").With(Opt("x", "1")),
	}
	for _, s := range other {
		if s.Digest() == base.Digest() || EqualSections(s, base) {
			t.Errorf("%v is taken for %v", s, base)
		}
	}
}

func TestAnonymousName(t *testing.T) {
	for _, c := range []struct {
		index int
		typ   string
		want  string
	}{
		{1, "rule", "cfg0192bd"}, {7, "wireguard_wg0", "cfg0796fc"}, {255, "a", "cfgffb606"}, {256, "a", "cfg100b606"}, {4096, "a", "cfg1000b606"},
	} {
		if got := AnonymousName(c.index, c.typ); got != c.want {
			t.Errorf("section %d of type %s: %s, want %s", c.index, c.typ, got, c.want)
		}
	}
}

func TestSecretOption(t *testing.T) {
	for _, n := range []string{"private_key", "preshared_key", "password", "key", "key2", "psk", "wpa_psk", "sae_password", "secret", "auth_secret", "token", "api_key", "pincode", "hmac_key"} {
		if !SecretOption(n) {
			t.Errorf("%s is shown", n)
		}
	}
	for _, n := range []string{"public_key", "keepalive", "persistent_keepalive", "ipaddr", "PasswordAuthX"[:0] + "proto", "allowed_ips", "monkey", "skip_inactivity_poll"} {
		if SecretOption(n) {
			t.Errorf("%s is hidden", n)
		}
	}
}

// Everything that can hold a secret, exported and not, printed in every way.
func TestNoSecretIsPrinted(t *testing.T) {
	const secret = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHn8="
	text := "config interface wg0\n\toption private_key '" + secret + "'\n\tlist password '" + secret + "'\n"
	d := mustParse(t, text)
	edited := d.Clone()
	if err := edited.Put(NewSection("peer", "p", HiddenOpt("x", secret), Opt("preshared_key", secret))); err != nil {
		t.Fatal(err)
	}
	s, _ := edited.Section("wg0")
	v, _ := s.Value("private_key")
	_, invalid := Parse("t", []byte("config a\n\toption key '"+secret+"' more\n"))
	loose, errs := ParseLoose("t", []byte("option key "+secret+"\n"+text))
	type holder struct {
		d  *Document
		dd Document
		s  Section
		ss []Section
		v  Value
		o  Option
		m  map[string]Value
		p  *Value
	}
	h := holder{edited, *edited, s, edited.Sections(), v, s.Options[0], map[string]Value{"k": v}, &v}
	shown := []any{d, *d, edited, *edited, s, &s, edited.Sections(), v, &v, s.Options, h, &h, []any{h}, invalid, loose, errs, struct{ H holder }{h},
		(&InvalidError{"wg0", "private_key", "set twice"}), edited.Put(NewSection("a", "b", Opt("key", secret+"\x00")))}
	var out bytes.Buffer
	logger := slog.New(slog.NewJSONHandler(&out, nil))
	for _, x := range shown {
		for _, verb := range strings.Fields("%v %+v %#v %s %q %x %X %d %o %b %c %U %e %f %g %t %p %T %w") {
			fmt.Fprintf(&out, verb+"\n", x)
		}
		b, _ := json.Marshal(x)
		out.Write(b)
		logger.Info("look", "x", x)
		slog.New(slog.NewTextHandler(&out, nil)).Info("look", "x", x)
	}
	for _, form := range []string{secret, secret[4:20], fmt.Sprintf("%x", secret[4:20]), fmt.Sprintf("%X", secret[4:20]), "65 65 69 67 65"} {
		if i := strings.Index(out.String(), form); i >= 0 {
			t.Errorf("the secret shows: …%s…", out.String()[max(0, i-200):min(out.Len(), i+100)])
		}
	}
	if !strings.Contains(out.String(), Redacted) || !strings.Contains(out.String(), "wg0") {
		t.Error("nothing was printed at all; the test looks at nothing")
	}
}

func TestConcurrentReading(t *testing.T) {
	d := mustParse(t, before)
	if err := d.Delete("cfg023511"); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			c := d.Clone()
			d.Text()
			d.Sections()
			d.Section("cfg023511")
			if err := c.Delete("lan"); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

func TestEmptyDocument(t *testing.T) {
	var none *Document
	if none.Name() != "" || len(none.Sections()) != 0 || len(none.Text()) != 0 || none.Editable() != nil {
		t.Error("no document is not empty")
	}
	var d Document
	if err := d.Put(NewSection("a", "b", Opt("x", "1"))); err != nil {
		t.Fatal(err)
	}
	if got := string(d.Text()); got != "\nconfig a 'b'\n\toption x '1'\n" {
		t.Errorf("%q", got)
	}
}

func FuzzParse(f *testing.F) {
	for _, c := range grammar {
		f.Add([]byte(c.text))
	}
	for _, c := range corpus() {
		f.Add(c.Data)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		loose, errs := ParseLoose("t", text)
		d, err := Parse("t", text)
		if err == nil && len(errs) > 0 || err != nil && loose.Editable() == nil {
			t.Fatalf("strict %v, loose %v, editable %v", err, errs, loose.Editable())
		}
		loose.Sections()
		if err != nil {
			return
		}
		if !bytes.Equal(d.Text(), text) {
			t.Fatalf("text became %q", d.Text())
		}
		if d.Editable() != nil {
			return
		}
		if _, taken := d.Section("hw_fuzz"); taken {
			return
		}
		if err := d.Put(NewSection("hw", "hw_fuzz", List("l", "it's", ""), Opt("x", "\\"))); err != nil {
			t.Fatal(err)
		}
		again := mustParse(t, string(d.Text()))
		if !Equal(again, d) {
			t.Fatalf("%q reads differently", d.Text())
		}
		if err := d.Delete("hw_fuzz"); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(d.Text(), text) {
			t.Fatalf("%q came back as %q", text, d.Text())
		}
	})
}

// peers is the text of n WireGuard peers behind a few foreign sections.
func peers(n int) []byte {
	var s []Section
	for i := range n {
		s = append(s, NewSection("wireguard_wg0", fmt.Sprintf("hw_peer_%d", i),
			Opt("description", fmt.Sprintf("peer-%d", i)),
			Opt("public_key", fmt.Sprintf("%043d=", i)),
			Opt("preshared_key", fmt.Sprintf("%043d=", i+1)),
			List("allowed_ips", fmt.Sprintf("10.%d.%d.%d/32", i>>16, i>>8&255, i&255), fmt.Sprintf("fd00::%x/128", i)),
			Opt("persistent_keepalive", "25")))
	}
	return append(slices.Clone(corpus()[1].Data), Print(s)...)
}

func BenchmarkParse10000(b *testing.B) {
	text := peers(10_000)
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Parse("network", text); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParseAndPrint10000(b *testing.B) {
	text := peers(10_000)
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		d, err := Parse("network", text)
		if err != nil {
			b.Fatal(err)
		}
		Print(d.Sections())
	}
}

// BenchmarkEdit10000 changes every second of 10,000 sections, deletes every
// fourth, adds as many, and puts the text together.
func BenchmarkEdit10000(b *testing.B) {
	d, err := Parse("network", peers(10_000))
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		c := d.Clone()
		for i := range 10_000 {
			name := fmt.Sprintf("hw_peer_%d", i)
			var err error
			switch i % 4 {
			case 0, 2:
				err = c.SetOption(name, Opt("persistent_keepalive", "26"))
			case 1:
				err = c.Delete(name)
			case 3:
				err = c.Put(NewSection("wireguard_wg0", name+"b", Opt("description", "new")))
			}
			if err != nil {
				b.Fatal(err)
			}
			if _, found := c.Section(name); found != (i%4 != 1) {
				b.Fatal(name)
			}
		}
		c.Text()
		c.Sections()
	}
}
