package world

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"fmt"
	"io"
	"log"
	"math/big"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/heimweg/heimweg/internal/lab"
)

// Names of the servers on the lab's internet that say who calls.
const (
	STUNServer = "stun.example.net:3478"
	EchoPage   = "https://ip.example.net/"
)

var (
	stationAddr  = netip.MustParsePrefix("192.0.2.78/24")
	stationAddr6 = netip.MustParsePrefix("2001:db8:80::78/64")
)

// Station is a host on the internet that says from where it is called: by STUN
// (RFC 8489) and by a web page. It counts who asked, so that a test can show that
// nobody was asked unasked.
type Station struct {
	Stack *lab.Stack
	// Roots vouch for the web page.
	Roots *x509.CertPool

	mu    sync.Mutex
	asked map[string]int
}

// Station of this world.
func (w *World) Station() *Station { return w.station }

// Asked counts the questions so far, by "stun" or "https".
func (s *Station) Asked(how string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked[how]
}

func (s *Station) count(how string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked[how]++
}

func (w *World) buildStation() error {
	s := &Station{Stack: lab.NewStack(w.World, "measuring station"), asked: map[string]int{}}
	i := lab.Iface{Dev: "eth0", Link: w.Link("hosting"), Addrs: []netip.Prefix{stationAddr}}
	routes := []lab.Route{{Dst: everything, Via: hosting.Addr(), Dev: "eth0"}}
	names := []netip.Addr{stationAddr.Addr()}
	if w.hasIPv6() {
		i.Addrs = append(i.Addrs, stationAddr6)
		routes = append(routes, lab.Route{Dst: netip.PrefixFrom(netip.IPv6Unspecified(), 0), Via: hosting6.Addr(), Dev: "eth0"})
		names = append(names, stationAddr6.Addr())
	}
	s.Stack.Configure([]lab.Iface{i}, routes)
	w.Name("stun.example.net", names...)
	w.Name("ip.example.net", names...)
	w.station = s
	if err := s.serveSTUN(); err != nil {
		return err
	}
	return s.servePage(w)
}

// serveSTUN answers Binding requests with where they came from.
func (s *Station) serveSTUN() error {
	u, err := s.Stack.ListenUDP(3478)
	if err != nil {
		return err
	}
	go func() {
		b := make([]byte, 1500)
		for {
			n, from, to, err := u.Receive(b)
			if err != nil {
				return
			}
			if a := stunAnswer(b[:n], from); a != nil {
				s.count("stun")
				u.WriteFrom(a, to.Addr(), from)
			}
		}
	}()
	return nil
}

// stunAnswer is RFC 8489, 6.3 and 14.2, for a request without attributes that must
// be understood.
func stunAnswer(q []byte, from netip.AddrPort) []byte {
	be := binary.BigEndian
	if len(q) < 20 || be.Uint16(q) != 0x0001 || be.Uint32(q[4:]) != 0x2112a442 || len(q) != 20+int(be.Uint16(q[2:])) {
		return nil
	}
	raw := from.Addr().AsSlice()
	family := byte(1)
	if len(raw) == 16 {
		family = 2
	}
	out := be.AppendUint16(nil, 0x0101)
	out = be.AppendUint16(out, uint16(8+len(raw)))
	out = append(out, q[4:20]...)
	out = be.AppendUint16(out, 0x0020)
	out = be.AppendUint16(out, uint16(4+len(raw)))
	out = append(out, 0, family)
	out = be.AppendUint16(out, from.Port()^0x2112)
	for i, x := range raw {
		out = append(out, x^q[4+i])
	}
	return out
}

// servePage says over HTTPS who calls.
func (s *Station) servePage(w *World) error {
	v, err := certificate()
	if err != nil {
		return err
	}
	s.Roots = v.roots
	l, err := s.Stack.ListenTCP(443)
	if err != nil {
		return err
	}
	server := &http.Server{ReadHeaderTimeout: time.Minute, ErrorLog: log.New(io.Discard, "", 0),
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			s.count("https")
			if from, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
				fmt.Fprintln(w, from.Addr().Unmap())
			}
		})}
	done := make(chan struct{})
	go func() {
		defer close(done)
		server.Serve(tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{v.cert}}))
	}()
	w.closers = append(w.closers, func() { server.Close(); <-done })
	return nil
}

type vouched struct {
	cert  tls.Certificate
	roots *x509.CertPool
}

// certificate is made once for all worlds. It is valid in virtual time, too, which
// begins in the year 2000.
var certificate = sync.OnceValues(func() (vouched, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return vouched{}, err
	}
	t := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "emulated world"},
		NotBefore: time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC), NotAfter: time.Date(2099, 1, 1, 0, 0, 0, 0, time.UTC),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames: []string{"ip.example.net"}, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		return vouched{}, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return vouched{}, err
	}
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	return vouched{tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, roots}, nil
})
