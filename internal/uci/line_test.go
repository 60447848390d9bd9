package uci

import (
	"strings"
	"testing"
)

// Where something stands in the file, also after an edit.
func TestLine(t *testing.T) {
	text := "# mine\n\nconfig zone\n\toption name 'lan'\n\tlist network 'lan'\n\tlist network 'guest'\n\nconfig rule 'hw_wg_in'\n" +
		"\toption src 'wan'\n\toption name 'two\n lines'\n\toption src 'vpn'\n\nconfig rule 'last'\n\toption x '1'\n"
	d, err := Parse("firewall", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	zone := d.Sections()[0].Name
	for _, c := range []struct {
		section, option string
		want            int
	}{
		{zone, "", 3}, {zone, "name", 4}, {zone, "network", 5}, {"hw_wg_in", "", 8}, {"hw_wg_in", "src", 12},
		{"last", "", 14}, {"last", "x", 15}, {"last", "y", 0}, {"nobody", "", 0},
	} {
		if got := d.Line(c.section, c.option); got != c.want {
			t.Errorf("%s.%s: line %d, want %d", c.section, c.option, got, c.want)
		}
	}
	if err := d.Delete("hw_wg_in"); err != nil {
		t.Fatal(err)
	}
	n := d.Line("last", "x")
	if l := strings.Split(string(d.Text()), "\n"); n == 0 || !strings.Contains(l[n-1], "option x") {
		t.Errorf("after an edit: line %d of %q", n, d.Text())
	}
}
