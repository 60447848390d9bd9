package uplink

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode"

	"github.com/heimweg/heimweg/internal/lab"
)

const description = `<?xml version="1.0"?>
<root xmlns="urn:schemas-upnp-org:device-1-0"><specVersion><major>1</major><minor>0</minor></specVersion><URLBase>http://fritz.box:49000</URLBase>
<device><deviceType>urn:schemas-upnp-org:device:InternetGatewayDevice:1</deviceType><friendlyName>my
box</friendlyName><manufacturer>AVM Berlin</manufacturer><modelName>FRITZ!Box 7590</modelName>
<deviceList><device><modelName>inner</modelName><serviceList><service><serviceType>urn:schemas-upnp-org:service:WANIPConnection:1</serviceType><controlURL>/igdupnp/control/WANIPConn1</controlURL></service></serviceList></device></deviceList>
</device></root>`

const service1 = "<service><serviceType>" + wanIP1 + "</serviceType><controlURL>/</controlURL></service>"

// Whatever host a router writes into its pages, we go to the router's own address.
func TestParseDevice(t *testing.T) {
	d, err := parseDevice([]byte(description), place{5000, "/a/igddesc.xml"})
	if err != nil || d.maker != "AVM Berlin" || d.model != "FRITZ!Box 7590" || len(d.services) != 1 ||
		d.services[0] != (service{wanIP1, place{49000, "/igdupnp/control/WANIPConn1"}}) || d.services[0].short() != "WANIPConnection:1" {
		t.Errorf("%+v, %v", d, err)
	}
	for _, c := range []struct{ base, control, want string }{
		{"", "/ctl", "port 5000 /ctl"},
		{"", "ctl?x=1", "port 5000 /a/ctl?x=1"},
		{"", "http://192.168.2.1:80/ctl", "port 80 /ctl"},
		{"", "http://evil.example.net:8080/ctl", "port 8080 /ctl"},
		{"http://10.0.0.1/base/", "ctl", "port 80 /base/ctl"},
		{"", "https://192.168.2.1/ctl", ""},
		{"", "http://192.168.2.1:0/ctl", ""},
		{"", "http://192.168.2.1:99999/ctl", ""},
		{"", "gopher://x/", ""},
		{"", "%zz", ""},
		{"", strings.Repeat("a", 600), ""},
	} {
		text := strings.ReplaceAll(strings.ReplaceAll(description, "http://fritz.box:49000", c.base), "/igdupnp/control/WANIPConn1", c.control)
		d, err := parseDevice([]byte(text), place{5000, "/a/igddesc.xml"})
		if err != nil {
			t.Error(err)
			continue
		}
		got := ""
		if len(d.services) > 0 {
			got = d.services[0].control.String()
		}
		if got != c.want {
			t.Errorf("%q, %q: %q, want %q", c.base, c.control, got, c.want)
		}
	}
	for _, bad := range []string{"", "hello", "<root>", "<root/>", strings.Repeat("<device>", 40) + strings.Repeat("</device>", 40), "<root>" + service1 + strings.Repeat("<a></a>", maxElements) + "</root>",
		strings.Repeat("<a>", 100), "<!DOCTYPE x [<!ENTITY a 'aaaa'>]><root>&a;</root>", `<?xml version="1.0" encoding="klingon"?><root/>`} {
		if d, err := parseDevice([]byte(bad), place{80, "/"}); err == nil {
			t.Errorf("%q: %+v", bad, d)
		}
	}
	latin := strings.ReplaceAll(strings.Replace(description, `version="1.0"`, `version="1.0" encoding="ISO-8859-1"`, 1), "AVM Berlin", "M\xfcller")
	if d, err := parseDevice([]byte(latin), place{80, "/"}); err != nil || d.maker != "Müller" {
		t.Errorf("%+v, %v", d, err)
	}
}

func TestParseAnswer(t *testing.T) {
	body := func(s string) []byte {
		return []byte(`<?xml version="1.0"?><s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body>` + s + `</s:Body></s:Envelope>`)
	}
	a, err := parseAnswer("X", body(`<u:XResponse xmlns:u="y"><NewA> 1 &amp; 2 </NewA><NewB/></u:XResponse>`))
	if err != nil || a.args["NewA"] != "1 & 2" || len(a.args) != 2 || a.fault {
		t.Errorf("%+v %v", a, err)
	}
	a, err = parseAnswer("X", body(`<s:Fault><faultcode>s:Client</faultcode><faultstring>UPnPError</faultstring><detail><UPnPError><errorCode>718</errorCode><errorDescription>Conflict
In</errorDescription></UPnPError></detail></s:Fault>`))
	if err != nil || !a.fault || a.code != 718 || a.words != "Conflict In" {
		t.Errorf("%+v %v", a, err)
	}
	for _, bad := range []string{`<u:YResponse xmlns:u="y"/>`, ``} {
		if a, err := parseAnswer("X", body(bad)); err == nil {
			t.Errorf("%+v", a)
		}
	}
	// What we write is what we would read, whatever is in it.
	text := envelope("urn:x", "X", []arg{{"NewA", `<&>"'`}})
	if err := walk([]byte(text), func(path []string, text string) {
		if path[len(path)-1] == "NewA" && text != `<&>"'` {
			t.Errorf("%q", text)
		}
	}); err != nil {
		t.Error(err)
	}
}

func TestParseSSDP(t *testing.T) {
	for text, want := range map[string]string{
		"HTTP/1.1 200 OK\r\nLOCATION: http://192.168.2.1:5000/rootDesc.xml\r\nST: x\r\n\r\n": "port 5000 /rootDesc.xml",
		"HTTP/1.1 200 OK\r\nLocation:http://10.0.0.138/igd.xml":                              "port 80 /igd.xml",
		"HTTP/1.1 404 No\r\nLOCATION: http://192.168.2.1:5000/rootDesc.xml\r\n\r\n":          "",
		"NOTIFY * HTTP/1.1\r\nLOCATION: http://192.168.2.1:5000/rootDesc.xml\r\n\r\n":        "",
		"HTTP/1.1 200 OK\r\nLOCATION: /rootDesc.xml\r\n\r\n":                                 "",
		"HTTP/1.1 200 OK\r\nLOCATION: file:///etc/passwd\r\n\r\n":                            "",
		"": "",
	} {
		p, ok := parseSSDP([]byte(text))
		got := ""
		if ok {
			got = p.String()
		}
		if got != want {
			t.Errorf("%q: %q", text, got)
		}
	}
}

// The example of RFC 2617 3.5, with a cnonce of ours: the first part is checked.
func TestDigest(t *testing.T) {
	h := http.Header{"Www-Authenticate": {`Basic realm="x"`, `Digest realm="testrealm@host.com", qop="auth,auth-int", nonce="dcd98b7102dd2f0e8b11d0f600bfb0c093", opaque="5ccc069c403ebaf9f0171e9517f40e41"`}}
	c, ok := parseChallenge(h)
	if !ok || c != (challenge{realm: "testrealm@host.com", nonce: "dcd98b7102dd2f0e8b11d0f600bfb0c093", opaque: "5ccc069c403ebaf9f0171e9517f40e41", qop: "auth"}) {
		t.Errorf("%+v", c)
	}
	l := *NewLogin("Mufasa", "Circle Of Life")
	// Without qop there is nothing of chance in it: RFC 2069's form of the same.
	old := c
	old.qop = ""
	if got := old.response(l, "GET", "/dir/index.html"); !strings.Contains(got, `response="670fd8c2df070c60b045671b8b24ff02"`) {
		t.Error(got)
	}
	got := c.response(l, "GET", "/dir/index.html")
	said := map[string]string{}
	for k, v := range pairs(strings.TrimPrefix(got, "Digest ")) {
		said[k] = v
	}
	want := sum(sum("Mufasa:testrealm@host.com:Circle Of Life") + ":" + c.nonce + ":00000001:" + said["cnonce"] + ":auth:" + sum("GET:/dir/index.html"))
	if said["response"] != want || said["opaque"] != c.opaque || len(said["cnonce"]) != 16 || strings.Contains(got, "Circle") {
		t.Errorf("%v", said)
	}
	for _, bad := range []string{`Digest realm="x"`, `Digest nonce="x", algorithm=SHA-256`, `Basic realm="x"`, `Digest`, ``} {
		if c, ok := parseChallenge(http.Header{"Www-Authenticate": {bad}}); ok {
			t.Errorf("%q: %+v", bad, c)
		}
	}
	if got := (challenge{realm: "a\"b\r\nX: y", nonce: "n"}).response(l, "GET", "/"); strings.ContainsAny(got, "\r\n") || !strings.Contains(got, `realm="a\"bX: y"`) {
		t.Errorf("%q", got)
	}
}

func FuzzXML(f *testing.F) {
	f.Add([]byte(description))
	f.Add([]byte(`<s:Envelope><s:Body><s:Fault><detail><errorCode>7</errorCode></detail></s:Fault></s:Body></s:Envelope>`))
	f.Add([]byte(`<Envelope><Body><XResponse><NewInternalClient>1.2.3.4</NewInternalClient><NewInternalPort>5</NewInternalPort></XResponse></Body></Envelope>`))
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := parseDevice(b, place{5000, "/x"})
		if err == nil {
			for _, s := range d.services {
				if s.control.port == 0 || !strings.HasPrefix(s.control.path, "/") || strings.ContainsAny(s.control.path, " \r\n") {
					t.Errorf("%+v", s)
				}
			}
			calm(t, d.maker, d.model)
		} else {
			calm(t, err.Error())
		}
		a, err := parseAnswer("X", b)
		if err == nil {
			calm(t, a.words)
			if m, ok := mapping(a.args); ok {
				calm(t, m.Description)
			}
		}
	})
}

// calm checks that text from outside cannot do anything to a terminal.
func calm(t *testing.T, list ...string) {
	t.Helper()
	for _, s := range list {
		if len([]rune(s)) > 300 || strings.IndexFunc(s, func(r rune) bool { return unicode.IsControl(r) }) >= 0 {
			t.Errorf("%q", s)
		}
	}
}

func FuzzDatagrams(f *testing.F) {
	f.Add([]byte("HTTP/1.1 200 OK\r\nLOCATION: http://192.168.2.1:5000/rootDesc.xml\r\n\r\n"))
	f.Add([]byte{0, 128, 0, 0, 0, 0, 0, 9, 1, 2, 3, 4})
	f.Add([]byte{0, 129, 0, 0, 0, 0, 0, 9, 1, 2, 3, 4, 0, 0, 0, 1})
	f.Add(append(pcpHeader(opMap|0x80, netip.IPv4Unspecified(), time.Hour), make([]byte, 36)...))
	f.Add([]byte(`Digest realm="x\"y", nonce=z, qop="auth"`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if p, ok := parseSSDP(b); ok && (p.port == 0 || !strings.HasPrefix(p.path, "/")) {
			t.Errorf("%+v", p)
		}
		if r, ok := parsePCP(b); ok && (r.lifetime < 0 || r.lifetime > maxAge || r.version == 2 && r.opcode == opMap && r.result == 0 && len(b) < 60) {
			t.Errorf("%+v", r)
		}
		if r, ok := parsePMP(b); ok && (r.lifetime < 0 || r.lifetime > maxAge || r.opcode == 0 && r.result == 0 && !r.public.Is4()) {
			t.Errorf("%+v", r)
		}
		if c, ok := parseChallenge(http.Header{"Www-Authenticate": {string(b)}}); ok {
			if got := c.response(*NewLogin("u", "p"), "POST", "/x"); strings.ContainsAny(got, "\r\n") {
				t.Errorf("%q", got)
			}
		}
		calm(t, oneLine(string(b), 80))
	})
}

// street is a lab with somebody who asks and somebody who answers badly.
func street(t *testing.T) (asker, router *lab.Stack, o Options) {
	w := lab.New(1)
	t.Cleanup(w.Close)
	link := w.Link("uplink LAN")
	asker, router = lab.NewStack(w, "home router"), lab.NewStack(w, "ISP router")
	for s, a := range map[*lab.Stack]string{asker: "192.168.2.253/24", router: "192.168.2.254/24"} {
		s.Configure([]lab.Iface{{Dev: "eth0", Link: link, Addrs: []netip.Prefix{netip.MustParsePrefix(a)}}}, nil)
	}
	listen := func(context.Context) (net.PacketConn, error) {
		u, err := asker.ListenUDP(0)
		if err != nil {
			return nil, err
		}
		return u, nil
	}
	o = Options{Gateway: netip.MustParseAddr("192.168.2.254"), Client: netip.MustParseAddr("192.168.2.253"), Direct: Way{Dial: asker.Dial, ListenUDP: listen}}
	return asker, router, o
}

// A web server that says terrible things costs neither memory nor patience.
func TestTerribleRouter(t *testing.T) {
	endless := func(c net.Conn) {
		for b := []byte(strings.Repeat("<a>", 1000)); ; {
			if _, err := c.Write(b); err != nil {
				return
			}
		}
	}
	for name, serve := range map[string]func(net.Conn){
		"endless body":   func(c net.Conn) { fmt.Fprint(c, "HTTP/1.1 200 OK\r\n\r\n"); endless(c) },
		"endless header": func(c net.Conn) { fmt.Fprint(c, "HTTP/1.1 200 OK\r\nX: "); endless(c) },
		"no HTTP":        func(c net.Conn) { fmt.Fprint(c, "SSH-2.0-x\r\n") },
		"closes":         func(c net.Conn) { c.Close() },
		"elsewhere": func(c net.Conn) {
			fmt.Fprint(c, "HTTP/1.1 302 Found\r\nLocation: http://192.0.2.1/\r\nContent-Length: 0\r\n\r\n")
		},
		"another service": func(c net.Conn) {
			fmt.Fprint(c, "HTTP/1.0 200 OK\r\n\r\n<root><device><serviceList><service><serviceType>urn:x:service:Y:1</serviceType><controlURL>/</controlURL></service></serviceList></device></root>")
		},
		"silence": func(c net.Conn) { io.Copy(io.Discard, c) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, router, o := street(t)
				l, err := router.Listen(5000, func(c net.Conn) { defer c.Close(); go io.Copy(io.Discard, c); serve(c) })
				if err != nil {
					t.Fatal(err)
				}
				defer l.Close()
				started := time.Now()
				g, err := Ask(t.Context(), o)
				if err == nil || time.Since(started) > 2*time.Second || len(g.Tried) != 3 {
					t.Errorf("%v after %s", err, time.Since(started))
				}
				calm(t, err.Error())
			})
		})
	}
}

// Answers of others than the ISP router do not count, nor do answers to other
// questions.
func TestStrangers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asker, router, o := street(t)
		u, err := router.ListenUDP(5351)
		if err != nil {
			t.Fatal(err)
		}
		defer u.Close()
		other, err := router.ListenUDP(5352)
		if err != nil {
			t.Fatal(err)
		}
		defer other.Close()
		_ = asker
		go func() {
			b := make([]byte, 1000)
			for {
				_, from, err := u.ReadFromAddrPort(b)
				if err != nil {
					return
				}
				other.WriteToAddrPort([]byte{0, 128, 0, 0, 0, 0, 0, 9, 203, 0, 113, 7}, from) // another port
				u.WriteToAddrPort([]byte{0, 129, 0, 0, 0, 0, 0, 9, 1, 2, 3, 4, 0, 0, 0, 1}, from)
				u.WriteToAddrPort([]byte{0, 0}, from)
				u.WriteToAddrPort(nil, from)
			}
		}()
		if g, err := Ask(t.Context(), o); err == nil {
			t.Errorf("%+v", g.Answers)
		}
	})
}

// What is in the list and disabled, or somebody else's, is not what is wanted.
func TestWantIs(t *testing.T) {
	us := netip.MustParseAddr("192.168.2.253")
	w := Want{Proto: "udp", External: 51820, Internal: 1194}
	m := w.mapping(us)
	if !w.is(m, us) || m.To.Port() != 1194 || m.Description != "heimweg" {
		t.Errorf("%+v", m)
	}
	for name, change := range map[string]func(*Mapping){
		"disabled": func(m *Mapping) { m.Disabled = true },
		"tcp":      func(m *Mapping) { m.Proto = "tcp" },
		"port":     func(m *Mapping) { m.External++ },
		"inside":   func(m *Mapping) { m.To = netip.AddrPortFrom(us, 51820) },
		"host":     func(m *Mapping) { m.To = netip.AddrPortFrom(us.Next(), 1194) },
	} {
		o := m
		if change(&o); w.is(o, us) {
			t.Error(name)
		}
	}
	if m, ok := mapping(map[string]string{"NewInternalClient": "192.168.2.253", "NewInternalPort": "1194", "NewEnabled": "0", "NewRemoteHost": "198.51.100.2", "NewLeaseDuration": "4294967295"}); !ok || !m.Disabled || !m.Remote.IsValid() || m.Lease != maxAge {
		t.Errorf("%+v", m)
	}
}

// PCP's answer to somebody else's request is not ours.
func TestForeignNonce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, router, o := street(t)
		u, err := router.ListenUDP(5351)
		if err != nil {
			t.Fatal(err)
		}
		defer u.Close()
		go func() {
			b := make([]byte, 1200)
			for {
				n, from, err := u.ReadFromAddrPort(b)
				if err != nil {
					return
				}
				answer := append([]byte(nil), b[:n]...)
				answer[1] |= 0x80
				if n >= 60 {
					answer[24]++
					answer[43]++ // another port
					u.WriteToAddrPort(answer, from)
					answer[24]--
					answer[43]--
				}
				u.WriteToAddrPort(answer, from)
			}
		}()
		o.Only = []Protocol{PCP}
		g, err := Ask(t.Context(), o)
		if err != nil || len(g.Tried) != 1 {
			t.Fatal(err, g.Tried)
		}
		if m, err := g.Map(t.Context(), Want{Proto: "udp", External: 51820}); err != nil || m.External != 51820 {
			t.Errorf("%+v %v", m, err)
		}
	})
}

func TestAddresses6(t *testing.T) {
	for _, c := range []struct{ gateway, to, want string }{
		{"2001:db8:2::9", "2001:db8:2::253", "[2001:db8:2::9]"},
		{"fe80::3a10:d5ff:fe01:203%wan", "2001:db8:2:0:1:2:3:4", "[2001:db8:2:0:3a10:d5ff:fe01:203 2001:db8:2::1]"},
		{"fe80::1", "2001:db8:2::253", "[2001:db8:2::1]"},
		{"", "2001:db8:2::253", "[2001:db8:2::1]"},
		{"", "2001:db8:2::1", "[]"},
		{"fe80::1", "192.0.2.1", "[]"},
		{"fe80::1", "fe80::2", "[]"},
	} {
		var gateway netip.Addr
		if c.gateway != "" {
			gateway = netip.MustParseAddr(c.gateway)
		}
		if got := fmt.Sprint(addresses6(gateway, netip.MustParseAddr(c.to))); got != c.want {
			t.Errorf("%s, %s: %s", c.gateway, c.to, got)
		}
	}
}

func TestLastUser(t *testing.T) {
	for list, want := range map[string]string{
		`<List><Username last_user="0">a</Username><Username last_user="1">fritz1234</Username></List>`: "fritz1234",
		`<List><Username last_user="0">only</Username></List>`:                                          "only",
		`<List><Username>only</Username></List>`:                                                        "only",
		`<List><Username>a</Username><Username>b</Username></List>`:                                     "",
		`<List><Username last_user="1">` + strings.Repeat("x", 40) + `</Username></List>`:               "",
		"<List><Username last_user=\"1\">a\x01b</Username></List>":                                      "",
		"": "", "<List>": "", "hello": "",
	} {
		if got := lastUser(list); got != want {
			t.Errorf("%q: %q", list, got)
		}
	}
}
