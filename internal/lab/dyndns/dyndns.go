// Package dyndns emulates a service that keeps a name for a household: a web
// server on the internet that changes public DNS when somebody with the right
// password tells it an address, and a page that says from which address one comes.
// It must never know what heimweg wrote to a router: it knows its own accounts.
//
// Background: the protocol is that of dyndns2, which most such services speak in
// some form: one HTTPS request with host name, address and password, answered by
// "good", "nochg" or "badauth".
package dyndns

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/heimweg/heimweg/internal/lab"
)

// Options of a service. Link, Addr and Gateway are required.
type Options struct {
	Link    *lab.Link
	Addr    netip.Prefix
	Gateway netip.Addr
	Host    string // the service's own name; "" = "dyn.example.net"
	// Accounts is host name → password.
	Accounts map[string]string
}

// Update is one request that had the right password.
type Update struct {
	Name string
	Addr netip.Addr
}

// Service is the emulated service.
type Service struct {
	opt   Options
	world *lab.World
	roots *x509.CertPool
	stop  []func() error

	mu      sync.Mutex
	updates []Update
	refused int
}

// New connects a service and switches it on.
func New(w *lab.World, opt Options) (*Service, error) {
	if opt.Host == "" {
		opt.Host = "dyn.example.net"
	}
	s := &Service{opt: opt, world: w}
	stack := lab.NewStack(w, "DDNS service")
	stack.Configure([]lab.Iface{{Dev: "eth0", Link: opt.Link, Addrs: []netip.Prefix{opt.Addr}}},
		[]lab.Route{{Dst: netip.PrefixFrom(netip.IPv4Unspecified(), 0), Via: opt.Gateway, Dev: "eth0"}})
	w.Name(opt.Host, opt.Addr.Addr())
	w.Name("checkip.dyndns.com", opt.Addr.Addr()) // whom ddns-scripts asks when nobody names a page
	cert, err := s.certificate()
	if err != nil {
		return nil, err
	}
	secure, err := stack.ListenTCP(443)
	if err != nil {
		return nil, err
	}
	plain, err := stack.ListenTCP(80)
	if err != nil {
		return nil, err
	}
	s.serve(tls.NewListener(secure, &tls.Config{Certificates: []tls.Certificate{cert}}))
	s.serve(plain)
	return s, nil
}

func (s *Service) serve(l net.Listener) {
	server := &http.Server{Handler: http.HandlerFunc(s.handle), ReadHeaderTimeout: time.Minute}
	s.stop = append(s.stop, server.Close)
	go server.Serve(l)
}

// Close switches it off.
func (s *Service) Close() {
	for _, stop := range s.stop {
		stop()
	}
}

// Roots are the authorities that vouch for the service.
func (s *Service) Roots() *x509.CertPool { return s.roots }

// Updates lists what it was told so far.
func (s *Service) Updates() []Update {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Update(nil), s.updates...)
}

// Refused counts requests with a wrong name or password.
func (s *Service) Refused() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.refused
}

func (s *Service) handle(w http.ResponseWriter, r *http.Request) {
	from, _ := netip.ParseAddrPort(r.RemoteAddr)
	if r.URL.Path == "/ip" || r.TLS == nil {
		fmt.Fprintf(w, "<html><body>Current IP Address: %s</body></html>\n", from.Addr())
		return
	}
	q := r.URL.Query()
	name, addr := q.Get("host"), from.Addr()
	if a, err := netip.ParseAddr(q.Get("ip")); err == nil {
		addr = a
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if password, known := s.opt.Accounts[name]; !known || q.Get("password") != password {
		s.refused++
		fmt.Fprintln(w, "badauth")
		return
	}
	s.updates = append(s.updates, Update{name, addr})
	all, _ := s.world.LookupAll(name)
	if slices.Contains(all, addr) {
		fmt.Fprintln(w, "nochg", addr)
		return
	}
	other := slices.DeleteFunc(slices.Clone(all), func(a netip.Addr) bool { return a.Is4() == addr.Is4() })
	s.world.Name(name, append(other, addr)...)
	fmt.Fprintln(w, "good", addr)
}

// certificate makes one that vouches for itself.
func (s *Service) certificate() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	now := time.Now()
	template := x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: s.opt.Host}, DNSNames: []string{s.opt.Host},
		NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(1, 0, 0), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, &key.PublicKey, key)
	if err != nil {
		return tls.Certificate{}, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return tls.Certificate{}, err
	}
	s.roots = x509.NewCertPool()
	s.roots.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}
