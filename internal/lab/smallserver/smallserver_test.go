package smallserver

import (
	"strings"
	"testing"
)

const good = `[Interface]
PrivateKey = SL3pG264i3OkjtJH2+WILiV5aDQywb/FJUVK3QzYcnQ=
Address = 10.184.63.1/30
ListenPort = 51821
PostUp = sysctl -q -w net.ipv4.ip_forward=1
PostUp = nft 'table ip x { chain in { type nat hook prerouting priority -100; udp dport 443 dnat to 10.184.63.2:51820; }; chain out { type nat hook postrouting priority 100; oifname "%i" masquerade; }; }'
[Peer]
PublicKey = Xf/Oc0302rQJDFnw7pJ/7l4nOe9TnzllCQn0Q1ViaU8=
AllowedIPs = 10.184.63.2/32
`

// What a server would not do, or do otherwise, is no configuration here.
func TestRead(t *testing.T) {
	c, err := read([]byte(good))
	if err != nil || c.calls != 443 || c.to.String() != "10.184.63.2:51820" || !c.masquerade || c.listen != 51821 {
		t.Errorf("%+v, %v", c.to, err)
	}
	for _, cut := range [][2]string{
		{"sysctl -q -w net.ipv4.ip_forward=1", "true"}, {"PostUp = sysctl -q -w net.ipv4.ip_forward=1\n", ""}, {"masquerade; }; }'", "}; }'"},
		{"hook prerouting", "hook output"}, {"dnat to 10", "dnat to x10"}, {"ListenPort = 51821", "ListenPort = x"}, {"Address", "Adress"}, {"[Peer]", "Peer"},
	} {
		text := strings.Replace(good, cut[0], cut[1], 1)
		if _, err := read([]byte(text)); err == nil {
			t.Errorf("%q → %q was taken", cut[0], cut[1])
		} else if strings.Contains(err.Error(), "SL3pG") {
			t.Errorf("a key in %v", err)
		}
	}
}
