package owrt

import (
	"bufio"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"net/netip"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.zx2c4.com/wireguard/device"

	"github.com/heimweg/heimweg/internal/key"
	"github.com/heimweg/heimweg/internal/lab"
	"github.com/heimweg/heimweg/internal/lab/owrt/ash"
	"github.com/heimweg/heimweg/internal/lab/owrt/boxfs"
	"github.com/heimweg/heimweg/internal/router"
	"github.com/heimweg/heimweg/internal/uci"
)

// wgLink is one live WireGuard interface: real, or a table. Both speak the
// UAPI text that wireguard-go does, so that wg(8) here knows only that.
type wgLink struct {
	name string
	mtu  int
	send func([]byte)

	mu   sync.Mutex
	tab  *wgTable
	real *device.Device
	tun  *lab.Tun
}

func newWGLink(b *Box, name string, mtu int) *wgLink {
	w := &wgLink{name: name, mtu: mtu}
	if !b.opt.Real || b.stack == nil {
		w.tab = &wgTable{peers: map[string]*wgPeer{}}
		return w
	}
	stack := b.stack
	w.tun = lab.NewTun(name, mtu, func(raw []byte) { stack.Inject(name, raw) })
	w.send = w.tun.Send
	quiet := &device.Logger{Verbosef: device.DiscardLogf, Errorf: device.DiscardLogf}
	w.real = device.NewDevice(w.tun, lab.NewBind(stack, 0), quiet)
	return w
}

func (w *wgLink) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.real != nil {
		w.real.Close()
		w.real = nil
	}
}

func (w *wgLink) up() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.real != nil {
		return w.real.Up()
	}
	return nil
}

func (w *wgLink) set(text string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.real != nil {
		return w.real.IpcSet(text)
	}
	if w.tab == nil {
		return fmt.Errorf("no such device")
	}
	return w.tab.set(text)
}

func (w *wgLink) get() *wgTable {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.real != nil {
		text, err := w.real.IpcGet()
		if err != nil {
			return &wgTable{peers: map[string]*wgPeer{}}
		}
		t := &wgTable{peers: map[string]*wgPeer{}}
		t.set(text)
		return t
	}
	if w.tab == nil {
		return &wgTable{peers: map[string]*wgPeer{}}
	}
	return w.tab.clone()
}

// wgTable is the state of an interface in the words of the UAPI: keys are hex.
type wgTable struct {
	private string
	port    int
	fwmark  int
	peers   map[string]*wgPeer
	order   []string
}

type wgPeer struct {
	public, preshared string
	endpoint          string
	allowed           []netip.Prefix
	keepalive         int
	handshake         int64
	rx, tx            int64
}

func (t *wgTable) clone() *wgTable {
	c := *t
	c.order = append([]string(nil), t.order...)
	c.peers = map[string]*wgPeer{}
	for k, p := range t.peers {
		q := *p
		q.allowed = append([]netip.Prefix(nil), p.allowed...)
		c.peers[k] = &q
	}
	return &c
}

const zeroKey = "0000000000000000000000000000000000000000000000000000000000000000"

// set reads UAPI text, as for set and as given by get.
func (t *wgTable) set(text string) error {
	var p *wgPeer
	for _, l := range strings.Split(text, "\n") {
		k, v, ok := strings.Cut(l, "=")
		if !ok {
			continue
		}
		switch k {
		case "private_key":
			t.private = v
			if v == zeroKey {
				t.private = ""
			}
		case "listen_port":
			t.port, _ = strconv.Atoi(v)
			if t.port == 0 {
				t.port = 40000 + time.Now().Nanosecond()%20000
			}
		case "fwmark":
			t.fwmark, _ = strconv.Atoi(v)
		case "replace_peers":
			t.peers, t.order = map[string]*wgPeer{}, nil
		case "public_key":
			if p = t.peers[v]; p == nil {
				p = &wgPeer{public: v}
				t.peers[v] = p
				t.order = append(t.order, v)
			}
		}
		if p == nil {
			continue
		}
		switch k {
		case "remove":
			t.remove(p.public)
		case "update_only":
		case "preshared_key":
			p.preshared = v
			if v == zeroKey {
				p.preshared = ""
			}
		case "endpoint":
			p.endpoint = v
		case "persistent_keepalive_interval":
			p.keepalive, _ = strconv.Atoi(v)
		case "replace_allowed_ips":
			p.allowed = nil
		case "allowed_ip":
			net, err := netip.ParsePrefix(v)
			if err != nil {
				return err
			}
			t.take(p, net.Masked())
		case "last_handshake_time_sec":
			p.handshake, _ = strconv.ParseInt(v, 10, 64)
		case "rx_bytes":
			p.rx, _ = strconv.ParseInt(v, 10, 64)
		case "tx_bytes":
			p.tx, _ = strconv.ParseInt(v, 10, 64)
		}
	}
	return nil
}

func (t *wgTable) remove(public string) {
	delete(t.peers, public)
	for i, k := range t.order {
		if k == public {
			t.order = append(t.order[:i], t.order[i+1:]...)
			break
		}
	}
}

// take gives a network to a peer; whoever had it loses it, silently (facts 5.4).
func (t *wgTable) take(p *wgPeer, net netip.Prefix) {
	for _, q := range t.peers {
		for i, n := range q.allowed {
			if n == net {
				q.allowed = append(q.allowed[:i:i], q.allowed[i+1:]...)
				break
			}
		}
	}
	p.allowed = append(p.allowed, net)
}

func hexKey(b64 string) (string, bool) {
	raw, err := base64.StdEncoding.DecodeString(strings.TrimSpace(b64))
	if err != nil || len(raw) != key.Size {
		return "", false
	}
	return hex.EncodeToString(raw), true
}

func b64Key(h string) string {
	raw, _ := hex.DecodeString(h)
	return base64.StdEncoding.EncodeToString(raw)
}

func publicOf(private string) string {
	raw, err := hex.DecodeString(private)
	if err != nil || len(raw) != key.Size {
		return ""
	}
	k, err := key.ParsePrivate(base64.StdEncoding.EncodeToString(raw))
	if err != nil {
		return ""
	}
	return k.Public().String()
}

// setUpWireGuard is the protocol handler: it makes the link and reads keys,
// addresses and peers from the files, staged changes included.
func (n *netifd) setUpWireGuard(name string) {
	doc := n.s.config("network")
	if doc == nil {
		return
	}
	sec, ok := doc.Section(name)
	if !ok {
		return
	}
	n.mu.Lock()
	i := n.ifaces[name]
	if i == nil {
		n.mu.Unlock()
		return
	}
	i.setup++
	id := i.setup
	old := i.wg
	i.wg = nil
	n.mu.Unlock()
	if old != nil {
		old.close()
		n.configure()
	}
	if !n.s.pkg.hasModule("wireguard") {
		n.fail(name, ifError{"wireguard", "SETUP_FAILED"})
		return
	}
	private, _ := sec.Get("private_key")
	if (private == "generate" && n.s.line.AtLeast(router.Line2203)) || (private == "" && n.s.line.AtLeast(router.Line2512)) {
		// Read on 24.10.8: the handler writes a real key back (observed 3).
		if k, err := key.NewPrivate(rand.Reader); err == nil {
			private = k.Reveal()
			n.s.uciRun("set", "network."+name+".private_key="+private)
			n.s.uciRun("commit", "network")
		}
	}
	hk, ok := hexKey(private)
	if !ok {
		// A malformed key: pending for ever, retried, only the log tells (observed 3).
		n.s.b.logf("daemon.notice netifd", "%s (%d): Key is not the correct length or format: `(hidden)'", name, 1234)
		n.mu.Lock()
		if i := n.ifaces[name]; i != nil {
			i.pending = true
		}
		n.mu.Unlock()
		n.s.soon(5*time.Second, func() {
			n.mu.Lock()
			i := n.ifaces[name]
			again := i != nil && i.setup == id && !i.up
			n.mu.Unlock()
			if again {
				n.setUp(name)
				n.configure()
			}
		})
		return
	}
	mtu := 1420
	if v, ok := sec.Get("mtu"); ok {
		if m, err := strconv.Atoi(v); err == nil {
			mtu = m
		}
	}
	w := newWGLink(n.s.b, name, mtu)
	text := "private_key=" + hk + "\n"
	port, _ := sec.Get("listen_port")
	if p, err := strconv.Atoi(port); err == nil {
		text += fmt.Sprintf("listen_port=%d\n", p)
	} else {
		text += "listen_port=0\n"
	}
	peers, routes := n.peers(doc, name)
	w.set(text + "replace_peers=true\n" + peers)
	var addrs []netip.Prefix
	for _, a := range words(sec, "addresses") {
		if p, ok := prefix(a, ""); ok {
			addrs = append(addrs, p)
		}
	}
	n.mu.Lock()
	i = n.ifaces[name]
	if i == nil || i.setup != id {
		n.mu.Unlock()
		w.close()
		return
	}
	i.wg, i.addrs, i.routes = w, addrs, routes
	n.mu.Unlock()
	n.mark(name)
	if err := w.up(); err != nil {
		n.s.b.logf("daemon.notice netifd", "%s: %v", name, err)
	}
}

func (n *netifd) fail(name string, e ifError) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if i := n.ifaces[name]; i != nil {
		i.errs = append(i.errs, e)
		i.up, i.pending = false, false
	}
}

// peers turns the peer sections of an interface into UAPI text. A peer that is
// disabled is left out from 22.03 on; 21.02 knows no such option (facts 1.13).
func (n *netifd) peers(doc *uci.Document, name string) (text string, routes []lab.Route) {
	var b strings.Builder
	for _, p := range doc.OfType("wireguard_" + name) {
		if p.Bool("disabled", false) && n.s.line.AtLeast(router.Line2203) {
			continue
		}
		v, _ := p.Get("public_key")
		pub, ok := hexKey(v)
		if !ok {
			if v != "" {
				n.s.b.logf("daemon.notice netifd", "%s: Key is not the correct length or format: `%s'", name, v)
			}
			continue
		}
		fmt.Fprintf(&b, "public_key=%s\n", pub)
		if v, ok := p.Get("preshared_key"); ok {
			if h, ok := hexKey(v); ok {
				fmt.Fprintf(&b, "preshared_key=%s\n", h)
			}
		}
		if host, ok := p.Get("endpoint_host"); ok {
			port, _ := p.Get("endpoint_port")
			if port == "" {
				port = "51820"
			}
			if a, ok := n.s.resolve(host); ok {
				pn, _ := strconv.ParseUint(port, 10, 16)
				fmt.Fprintf(&b, "endpoint=%s\n", netip.AddrPortFrom(a, uint16(pn)))
			}
		}
		if v, ok := p.Get("persistent_keepalive"); ok {
			if k, err := strconv.Atoi(v); err == nil {
				fmt.Fprintf(&b, "persistent_keepalive_interval=%d\n", k)
			}
		}
		b.WriteString("replace_allowed_ips=true\n")
		for _, a := range words(p, "allowed_ips") {
			net, ok := prefix(a, "")
			if !ok {
				continue
			}
			fmt.Fprintf(&b, "allowed_ip=%s\n", net.Masked())
			if p.Bool("route_allowed_ips", false) {
				routes = append(routes, lab.Route{Dst: net.Masked(), Dev: name})
			}
		}
	}
	return b.String(), routes
}

// renew is `ubus call network.interface.X renew`: from 25.12 on the WireGuard
// handler takes peers, routes and addresses over without a tear-down; before,
// it does nothing and still says yes (observed 3).
func (n *netifd) renew(name string) {
	n.mu.Lock()
	i := n.ifaces[name]
	if i == nil {
		n.mu.Unlock()
		return
	}
	proto, w, up := i.proto, i.wg, i.up
	n.mu.Unlock()
	if proto == "dhcp" {
		n.renewLeases()
		return
	}
	if proto != "wireguard" || n.s.line.Before(router.Line2512) || w == nil || !up {
		return
	}
	doc := n.s.config("network")
	if doc == nil {
		return
	}
	sec, _ := doc.Section(name)
	peers, routes := n.peers(doc, name)
	syncPeers(w, peers)
	var addrs []netip.Prefix
	for _, a := range words(sec, "addresses") {
		if p, ok := prefix(a, ""); ok {
			addrs = append(addrs, p)
		}
	}
	n.mu.Lock()
	i.addrs, i.routes = addrs, routes
	n.mu.Unlock()
	n.configure()
}

// syncPeers makes the live peers what text says, touching only what differs.
func syncPeers(w *wgLink, text string) error {
	want := &wgTable{peers: map[string]*wgPeer{}}
	if err := want.set(text); err != nil {
		return err
	}
	have := w.get()
	var b strings.Builder
	for _, k := range have.order {
		if want.peers[k] == nil {
			fmt.Fprintf(&b, "public_key=%s\nremove=true\n", k)
		}
	}
	for _, k := range want.order {
		p := want.peers[k]
		fmt.Fprintf(&b, "public_key=%s\n", k)
		psk := p.preshared
		if psk == "" {
			psk = zeroKey
		}
		fmt.Fprintf(&b, "preshared_key=%s\n", psk)
		if p.endpoint != "" {
			fmt.Fprintf(&b, "endpoint=%s\n", p.endpoint)
		}
		fmt.Fprintf(&b, "persistent_keepalive_interval=%d\nreplace_allowed_ips=true\n", p.keepalive)
		for _, a := range p.allowed {
			fmt.Fprintf(&b, "allowed_ip=%s\n", a)
		}
	}
	return w.set(b.String())
}

func (s *system) resolve(host string) (netip.Addr, bool) {
	if a, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
		return a, true
	}
	if s.b.world == nil {
		return netip.Addr{}, false
	}
	return s.b.world.Lookup(host)
}

// links finds the live WireGuard interfaces by name.
func (s *system) wgLinks() map[string]*wgLink {
	m := map[string]*wgLink{}
	for _, i := range s.net.list() {
		if i.wg != nil {
			m[i.name] = i.wg
		}
	}
	return m
}

// wgProgram is wg(8) of wireguard-tools.
func (s *system) wgProgram(p *ash.Proc, args []string) int {
	a := args[1:]
	if len(a) == 0 {
		a = []string{"show"}
	}
	switch a[0] {
	case "genkey", "genpsk":
		var raw [key.Size]byte
		rand.Read(raw[:])
		if a[0] == "genkey" {
			raw[0] &= 248
			raw[31] = raw[31]&127 | 64
		}
		fmt.Fprintln(p.Stdout(), base64.StdEncoding.EncodeToString(raw[:]))
		return 0
	case "pubkey":
		data, _ := io.ReadAll(p.Stdin())
		h, ok := hexKey(string(data))
		if !ok {
			fmt.Fprintln(p.Stderr(), "wg: Key is not the correct length or format")
			return 1
		}
		fmt.Fprintln(p.Stdout(), publicOf(h))
		return 0
	case "show":
		return s.wgShow(p, a[1:])
	case "showconf":
		if len(a) == 2 {
			if w := s.wgLinks()[a[1]]; w != nil {
				wgConf(p.Stdout(), w.get())
				return 0
			}
			return noDevice(p, "access")
		}
	case "set":
		if len(a) > 1 {
			return s.wgSet(p, a[1], a[2:])
		}
	case "setconf", "addconf", "syncconf":
		if len(a) == 3 {
			return s.wgSetConf(p, a[0], a[1], a[2])
		}
	}
	fmt.Fprintf(p.Stderr(), "Usage: wg <cmd> [<args>]\n")
	return 1
}

func noDevice(p *ash.Proc, what string) int {
	fmt.Fprintf(p.Stderr(), "Unable to %s interface: No such device\n", what)
	return 1
}

func (s *system) wgShow(p *ash.Proc, a []string) int {
	links := s.wgLinks()
	var names []string
	for n := range links {
		names = append(names, n)
	}
	sort.Strings(names)
	which := "all"
	if len(a) > 0 {
		which = a[0]
	}
	switch {
	case which == "interfaces":
		if len(names) > 0 {
			fmt.Fprintln(p.Stdout(), strings.Join(names, " "))
		}
		return 0
	case which != "all":
		if links[which] == nil {
			return noDevice(p, "access")
		}
		names = []string{which}
	}
	if len(a) < 2 {
		for i, n := range names {
			if i > 0 {
				fmt.Fprintln(p.Stdout())
			}
			wgPretty(p.Stdout(), n, links[n].get())
		}
		return 0
	}
	for _, n := range names {
		pre := ""
		if which == "all" {
			pre = n + "\t"
		}
		if !wgField(p.Stdout(), pre, a[1], links[n].get()) {
			fmt.Fprintf(p.Stderr(), "Invalid parameter: `%s'\n", a[1])
			return 1
		}
	}
	return 0
}

func none(s string) string {
	if s == "" {
		return "(none)"
	}
	return s
}

func allowedText(p *wgPeer, sep string) string {
	var l []string
	for _, a := range p.allowed {
		l = append(l, a.String())
	}
	if len(l) == 0 {
		return "(none)"
	}
	return strings.Join(l, sep)
}

func offOr(n int) string {
	if n == 0 {
		return "off"
	}
	return strconv.Itoa(n)
}

func keyOrNone(h string) string {
	if h == "" {
		return "(none)"
	}
	return b64Key(h)
}

func mark(n int) string {
	if n == 0 {
		return "off"
	}
	return fmt.Sprintf("0x%x", n)
}

func (t *wgTable) list() []*wgPeer {
	var l []*wgPeer
	for _, k := range t.order {
		l = append(l, t.peers[k])
	}
	return l
}

// wgField prints one column, or the dump (facts 8: 5 and 9 fields with the
// interface in front, 4 and 8 without).
func wgField(w io.Writer, pre, field string, t *wgTable) bool {
	pub := "(none)"
	if t.private != "" {
		pub = publicOf(t.private)
	}
	each := func(val func(*wgPeer) string) bool {
		for _, p := range t.list() {
			fmt.Fprintf(w, "%s%s\t%s\n", pre, b64Key(p.public), val(p))
		}
		return true
	}
	switch field {
	case "public-key":
		fmt.Fprintf(w, "%s%s\n", pre, pub)
	case "private-key":
		fmt.Fprintf(w, "%s%s\n", pre, keyOrNone(t.private))
	case "listen-port":
		fmt.Fprintf(w, "%s%d\n", pre, t.port)
	case "fwmark":
		fmt.Fprintf(w, "%s%s\n", pre, mark(t.fwmark))
	case "peers":
		for _, p := range t.list() {
			fmt.Fprintf(w, "%s%s\n", pre, b64Key(p.public))
		}
	case "preshared-keys":
		return each(func(p *wgPeer) string { return keyOrNone(p.preshared) })
	case "endpoints":
		return each(func(p *wgPeer) string { return none(p.endpoint) })
	case "allowed-ips":
		return each(func(p *wgPeer) string { return allowedText(p, " ") })
	case "latest-handshakes":
		return each(func(p *wgPeer) string { return strconv.FormatInt(p.handshake, 10) })
	case "persistent-keepalive":
		return each(func(p *wgPeer) string { return offOr(p.keepalive) })
	case "transfer":
		return each(func(p *wgPeer) string { return fmt.Sprintf("%d\t%d", p.rx, p.tx) })
	case "dump":
		fmt.Fprintf(w, "%s%s\t%s\t%d\t%s\n", pre, keyOrNone(t.private), pub, t.port, mark(t.fwmark))
		for _, p := range t.list() {
			fmt.Fprintf(w, "%s%s\t%s\t%s\t%s\t%d\t%d\t%d\t%s\n", pre, b64Key(p.public), keyOrNone(p.preshared), none(p.endpoint), allowedText(p, ","), p.handshake, p.rx, p.tx, offOr(p.keepalive))
		}
	default:
		return false
	}
	return true
}

func wgPretty(w io.Writer, name string, t *wgTable) {
	fmt.Fprintf(w, "interface: %s\n", name)
	if t.private != "" {
		fmt.Fprintf(w, "  public key: %s\n  private key: (hidden)\n", publicOf(t.private))
	}
	if t.port != 0 {
		fmt.Fprintf(w, "  listening port: %d\n", t.port)
	}
	for _, p := range t.list() {
		fmt.Fprintf(w, "\npeer: %s\n", b64Key(p.public))
		if p.preshared != "" {
			fmt.Fprintln(w, "  preshared key: (hidden)")
		}
		if p.endpoint != "" {
			fmt.Fprintf(w, "  endpoint: %s\n", p.endpoint)
		}
		fmt.Fprintf(w, "  allowed ips: %s\n", allowedText(p, ", "))
		if p.handshake > 0 {
			fmt.Fprintf(w, "  latest handshake: %d seconds ago\n", time.Now().Unix()-p.handshake)
		}
		if p.rx > 0 || p.tx > 0 {
			fmt.Fprintf(w, "  transfer: %d B received, %d B sent\n", p.rx, p.tx)
		}
	}
}

func wgConf(w io.Writer, t *wgTable) {
	fmt.Fprintf(w, "[Interface]\n")
	if t.port != 0 {
		fmt.Fprintf(w, "ListenPort = %d\n", t.port)
	}
	if t.private != "" {
		fmt.Fprintf(w, "PrivateKey = %s\n", b64Key(t.private))
	}
	for _, p := range t.list() {
		fmt.Fprintf(w, "\n[Peer]\nPublicKey = %s\n", b64Key(p.public))
		if p.preshared != "" {
			fmt.Fprintf(w, "PresharedKey = %s\n", b64Key(p.preshared))
		}
		if len(p.allowed) > 0 {
			fmt.Fprintf(w, "AllowedIPs = %s\n", allowedText(p, ", "))
		}
		if p.endpoint != "" {
			fmt.Fprintf(w, "Endpoint = %s\n", p.endpoint)
		}
		if p.keepalive > 0 {
			fmt.Fprintf(w, "PersistentKeepalive = %d\n", p.keepalive)
		}
	}
}

// wgKeyFile reads a key from a file for `wg set`; an empty preshared key file
// means none.
func wgKeyFile(p *ash.Proc, name string, optional bool) (string, bool) {
	h, err := p.Open(name, boxfs.Read)
	if err != nil {
		fmt.Fprintf(p.Stderr(), "fopen: %s\n", ash.ErrText(err))
		return "", false
	}
	defer h.Close()
	// Like wg, take the first line and leave the rest to the next key.
	line, _ := readLine(h)
	if strings.TrimSpace(line) == "" {
		if optional {
			return zeroKey, true
		}
		return zeroKey, true
	}
	k, ok := hexKey(line)
	if !ok {
		fmt.Fprintln(p.Stderr(), "Key is not the correct length or format")
	}
	return k, ok
}

func readLine(r io.Reader) (string, error) {
	var b strings.Builder
	one := make([]byte, 1)
	for {
		n, err := r.Read(one)
		if n > 0 {
			if one[0] == '\n' {
				return b.String(), nil
			}
			b.WriteByte(one[0])
		}
		if err != nil {
			return b.String(), err
		}
	}
}

func (s *system) wgSet(p *ash.Proc, name string, a []string) int {
	w := s.wgLinks()[name]
	var text strings.Builder
	bad := func(what string) int {
		fmt.Fprintf(p.Stderr(), "Invalid argument: %s\n", what)
		return 1
	}
	inPeer := false
	for len(a) > 0 {
		opt := a[0]
		a = a[1:]
		arg := ""
		if opt != "remove" {
			if len(a) == 0 {
				return bad(opt)
			}
			arg, a = a[0], a[1:]
		}
		switch opt {
		case "private-key", "preshared-key":
			k, ok := wgKeyFile(p, arg, opt == "preshared-key")
			if !ok {
				return 1
			}
			if (opt == "preshared-key") != inPeer {
				return bad(opt)
			}
			text.WriteString(strings.ReplaceAll(opt, "-", "_") + "=" + k + "\n")
		case "listen-port":
			if _, err := strconv.ParseUint(arg, 10, 16); err != nil {
				fmt.Fprintf(p.Stderr(), "Unable to parse port number: `%s'\n", arg)
				return 1
			}
			text.WriteString("listen_port=" + arg + "\n")
		case "fwmark":
			text.WriteString("fwmark=" + arg + "\n")
		case "peer":
			k, ok := hexKey(arg)
			if !ok {
				fmt.Fprintf(p.Stderr(), "Key is not the correct length or format: `%s'\n", arg)
				return 1
			}
			inPeer = true
			text.WriteString("public_key=" + k + "\n")
		case "remove":
			text.WriteString("remove=true\n")
		case "endpoint":
			ep, ok := s.endpoint(arg)
			if !ok {
				fmt.Fprintf(p.Stderr(), "Name does not resolve: `%s'\n", arg)
				return 1
			}
			text.WriteString("endpoint=" + ep + "\n")
		case "persistent-keepalive":
			if arg == "off" {
				arg = "0"
			}
			text.WriteString("persistent_keepalive_interval=" + arg + "\n")
		case "allowed-ips":
			if !wgAllowed(p, &text, arg) {
				return 1
			}
		default:
			return bad(opt)
		}
	}
	if w == nil {
		return noDevice(p, "modify")
	}
	if err := w.set(text.String()); err != nil {
		fmt.Fprintf(p.Stderr(), "Unable to modify interface: %v\n", err)
		return 1
	}
	return 0
}

func wgAllowed(p *ash.Proc, text *strings.Builder, arg string) bool {
	text.WriteString("replace_allowed_ips=true\n")
	for _, x := range strings.Split(arg, ",") {
		if x = strings.TrimSpace(x); x == "" {
			continue
		}
		net, ok := prefix(x, "")
		if !ok {
			fmt.Fprintf(p.Stderr(), "Unable to parse IP address: `%s'\n", x)
			return false
		}
		text.WriteString("allowed_ip=" + net.Masked().String() + "\n")
	}
	return true
}

func (s *system) endpoint(arg string) (string, bool) {
	i := strings.LastIndex(arg, ":")
	if i < 0 {
		return "", false
	}
	a, ok := s.resolve(arg[:i])
	port, err := strconv.ParseUint(arg[i+1:], 10, 16)
	if !ok || err != nil {
		return "", false
	}
	return netip.AddrPortFrom(a, uint16(port)).String(), true
}

// wgSetConf reads a configuration file for setconf, addconf and syncconf.
func (s *system) wgSetConf(p *ash.Proc, how, name, file string) int {
	h, err := p.Open(file, boxfs.Read)
	if err != nil {
		fmt.Fprintf(p.Stderr(), "fopen: %s\n", ash.ErrText(err))
		return 1
	}
	defer h.Close()
	var dev, peers strings.Builder
	out := &dev
	sc := bufio.NewScanner(h)
	for sc.Scan() {
		l, _, _ := strings.Cut(sc.Text(), "#")
		if l = strings.TrimSpace(l); l == "" {
			continue
		}
		k, v, _ := strings.Cut(l, "=")
		k, v = strings.ToLower(strings.TrimSpace(k)), strings.TrimSpace(v)
		ok := true
		switch k {
		case "[interface]":
			out = &dev
		case "[peer]":
			out = &peers
		case "privatekey", "presharedkey", "publickey":
			var hx string
			hx, ok = hexKey(v)
			out.WriteString(map[string]string{"privatekey": "private_key", "presharedkey": "preshared_key", "publickey": "public_key"}[k] + "=" + hx + "\n")
		case "listenport":
			out.WriteString("listen_port=" + v + "\n")
		case "fwmark":
			out.WriteString("fwmark=" + v + "\n")
		case "allowedips":
			ok = wgAllowed(p, out, v)
		case "endpoint":
			var ep string
			ep, ok = s.endpoint(v)
			out.WriteString("endpoint=" + ep + "\n")
		case "persistentkeepalive":
			if v == "off" {
				v = "0"
			}
			out.WriteString("persistent_keepalive_interval=" + v + "\n")
		default:
			ok = false
		}
		if !ok {
			fmt.Fprintf(p.Stderr(), "Line unrecognized: `%s'\nConfiguration parsing error\n", strings.Split(l, "=")[0])
			return 1
		}
	}
	w := s.wgLinks()[name]
	if w == nil {
		return noDevice(p, "modify")
	}
	switch how {
	case "syncconf":
		if err = w.set(dev.String()); err == nil {
			err = syncPeers(w, peers.String())
		}
	case "setconf":
		err = w.set(dev.String() + "replace_peers=true\n" + peers.String())
	default:
		err = w.set(dev.String() + peers.String())
	}
	if err != nil {
		fmt.Fprintf(p.Stderr(), "Unable to modify interface: %v\n", err)
		return 1
	}
	return 0
}
