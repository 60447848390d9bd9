// Package nas emulates the device that everybody wants to reach: a storage box
// on the home LAN. It serves one web page that says hello and whom it is talking
// to, so that a test can see both that a packet arrived and what its sender
// looked like at the end of all translation.
//
// With gVisor's TCP/IP (the normal case) it must stay outside testing/synctest
// bubbles; Plain makes it speak the lab's own.
package nas

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/heimweg/heimweg/internal/lab"
	"github.com/heimweg/heimweg/internal/lab/tcpip"
)

// Hello is how the page begins.
const Hello = "hello from home"

// Options of a NAS. Link and Addr are required.
type Options struct {
	Name    string // "" = "NAS"
	Link    *lab.Link
	Addr    netip.Prefix
	Gateway netip.Addr // the zero address: no gateway, it answers its own network only
	Plain   bool       // the lab's own TCP/IP, for bubbles
	Greet   string     // "" = Hello
}

// Box is the emulated NAS.
type Box struct {
	opt   Options
	stack *lab.Stack

	life   sync.Mutex // held while it moves or closes: a second move waits for the first
	mu     sync.Mutex
	host   *tcpip.Host
	server *http.Server
	seen   []netip.Addr
	in     chan []byte
	quit   chan struct{}
	done   sync.WaitGroup
}

// New connects a NAS and switches it on.
func New(w *lab.World, opt Options) (*Box, error) {
	if opt.Name == "" {
		opt.Name = "NAS"
	}
	if opt.Greet == "" {
		opt.Greet = Hello
	}
	b := &Box{opt: opt, stack: lab.NewStack(w, opt.Name)}
	return b, b.Move(opt.Addr, opt.Gateway)
}

// Stack is the host's place in the fabric.
func (b *Box) Stack() *lab.Stack { return b.stack }

// Addr is the NAS's address now.
func (b *Box) Addr() netip.Addr {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.opt.Addr.Addr()
}

// Seen lists the senders of all page requests so far.
func (b *Box) Seen() []netip.Addr {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]netip.Addr(nil), b.seen...)
}

// SetGateway changes the way out; connections live on.
func (b *Box) SetGateway(g netip.Addr) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.opt.Gateway = g
	b.configure()
}

// Move gives the NAS another address, which restarts its services.
func (b *Box) Move(addr netip.Prefix, gateway netip.Addr) error {
	b.life.Lock()
	defer b.life.Unlock()
	b.close()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.opt.Addr, b.opt.Gateway = addr, gateway
	b.stack.PowerOn()
	b.configure()
	return b.start()
}

func (b *Box) configure() {
	var routes []lab.Route
	if b.opt.Gateway.IsValid() {
		routes = []lab.Route{{Dst: netip.PrefixFrom(netip.IPv4Unspecified(), 0), Via: b.opt.Gateway, Dev: "eth0"}}
	}
	b.stack.Configure([]lab.Iface{{Dev: "eth0", Link: b.opt.Link, Addrs: []netip.Prefix{b.opt.Addr}}}, routes)
}

// start brings up the services. The caller holds mu.
func (b *Box) start() error {
	var l net.Listener
	var err error
	if b.opt.Plain {
		l, err = b.stack.ListenTCP(80)
	} else {
		l, err = b.startHost()
	}
	if err != nil {
		return err
	}
	b.server = &http.Server{Handler: http.HandlerFunc(b.page), ReadHeaderTimeout: time.Minute}
	server := b.server
	b.done.Go(func() { server.Serve(l) })
	return nil
}

// startHost puts gVisor's TCP/IP between the fabric and the services.
func (b *Box) startHost() (net.Listener, error) {
	host, err := tcpip.New([]netip.Addr{b.opt.Addr.Addr()}, 1500, b.stack.Emit)
	if err != nil {
		return nil, err
	}
	b.host = host
	in, quit := make(chan []byte, 1024), make(chan struct{})
	b.in, b.quit = in, quit
	b.done.Go(func() {
		for {
			select {
			case raw := <-in:
				host.Deliver(raw)
			case <-quit:
				return
			}
		}
	})
	b.stack.Divert(func(raw []byte) {
		select {
		case in <- raw:
		default: // its network card is overrun
		}
	})
	return host.Listen(80)
}

func (b *Box) page(w http.ResponseWriter, r *http.Request) {
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		http.Error(w, "who are you?", http.StatusBadRequest)
		return
	}
	b.mu.Lock()
	b.seen = append(b.seen, from.Addr().Unmap())
	b.mu.Unlock()
	if r.URL.Path == "/big" {
		w.Header().Set("Content-Length", fmt.Sprint(BigPage))
		block := make([]byte, 64*1024)
		for range BigPage / len(block) {
			if _, err := w.Write(block); err != nil {
				return
			}
		}
		return
	}
	fmt.Fprintf(w, "%s\nyou are %s\n", b.opt.Greet, from.Addr().Unmap())
}

// BigPage is the size of the page /big in bytes.
const BigPage = 4 * 1024 * 1024

// Close switches the NAS off.
func (b *Box) Close() {
	b.life.Lock()
	defer b.life.Unlock()
	b.close()
}

func (b *Box) close() {
	b.mu.Lock()
	server, host, quit := b.server, b.host, b.quit
	b.server, b.host, b.quit = nil, nil, nil
	b.mu.Unlock()
	b.stack.Divert(nil)
	if server != nil {
		server.Close()
	}
	b.stack.PowerOff()
	if quit != nil {
		close(quit)
	}
	if host != nil {
		host.Close()
	}
	b.done.Wait()
}
