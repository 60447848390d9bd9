package uci

import "testing"

func TestPutAndDeleteRestore(t *testing.T) {
	const text = "\nconfig interface 'lan'\n\toption proto static # kept\n\n"
	d, err := Parse("network", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Put(NewSection("interface", "wg0", Opt("proto", "wireguard"), List("addresses", "10.1.1.1/24", "it's"))); err != nil {
		t.Fatal(err)
	}
	want := "\nconfig interface 'lan'\n\toption proto static # kept\n\nconfig interface 'wg0'\n\toption proto 'wireguard'\n\tlist addresses '10.1.1.1/24'\n\tlist addresses 'it'\\''s'\n\n"
	if got := string(d.Text()); got != want {
		t.Errorf("got %q\nwant %q", got, want)
	}
	if err := d.Delete("wg0"); err != nil {
		t.Fatal(err)
	}
	if got := string(d.Text()); got != text {
		t.Errorf("got %q\nwant %q", got, text)
	}
}
