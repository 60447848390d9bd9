package tunnel

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"net"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// dnsRetry is how long one server may take for one question before it is asked
// again, or the next one is.
const dnsRetry = 2 * time.Second

// Lookup asks the DNS servers inside the tunnel for the addresses of a name, one
// after the other and again until ctx ends, and returns at least one address. It
// takes no notice of this computer's hosts file or search domains. Errors:
// *UnreachableError around *net.DNSError.
func (t *Tunnel) Lookup(ctx context.Context, name string) ([]netip.Addr, error) {
	name = strings.TrimSuffix(name, ".")
	fail := func(err error) ([]netip.Addr, error) { return nil, &UnreachableError{Addr: name, Cause: err} }
	if len(t.cfg.DNS) == 0 {
		return fail(&net.DNSError{Err: "the tunnel has no DNS server", Name: name})
	}
	n, err := dnsmessage.NewName(name + ".")
	if err != nil {
		return fail(&net.DNSError{Err: "not a host name", Name: name, IsNotFound: true})
	}
	var out []netip.Addr
	for _, typ := range []dnsmessage.Type{dnsmessage.TypeA, dnsmessage.TypeAAAA} {
		if !t.has(typ == dnsmessage.TypeA) {
			continue
		}
		found, err := t.ask(ctx, name, dnsmessage.Question{Name: n, Type: typ, Class: dnsmessage.ClassINET})
		if err != nil {
			return fail(err)
		}
		out = append(out, found...)
	}
	if len(out) == 0 {
		return fail(&net.DNSError{Err: "no such host", Name: name, IsNotFound: true})
	}
	return out, nil
}

// has reports whether this peer has an address of a family.
func (t *Tunnel) has(four bool) bool {
	for _, a := range t.cfg.Addresses {
		if a.Unmap().Is4() == four {
			return true
		}
	}
	return false
}

// ask puts one question until some server has answered it.
func (t *Tunnel) ask(ctx context.Context, name string, q dnsmessage.Question) ([]netip.Addr, error) {
	for i := 0; ; i++ {
		server := t.cfg.DNS[i%len(t.cfg.DNS)]
		one, cancel := context.WithTimeout(ctx, dnsRetry)
		m, err := t.exchange(one, server, q)
		cancel()
		switch {
		case err == nil && m.RCode == dnsmessage.RCodeNameError:
			return nil, &net.DNSError{Err: "no such host", Name: name, Server: server.String(), IsNotFound: true}
		case err == nil && m.RCode == dnsmessage.RCodeSuccess:
			return addresses(m), nil
		case err == nil && i+1 >= len(t.cfg.DNS):
			return nil, &net.DNSError{Err: "refused with " + m.RCode.String(), Name: name, Server: server.String()}
		case ctx.Err() != nil:
			return nil, &net.DNSError{UnwrapErr: context.Cause(ctx), Err: "no answer", Name: name, Server: server.String(), IsTimeout: true}
		}
		select {
		case <-t.nic.closing:
			return nil, &net.DNSError{UnwrapErr: net.ErrClosed, Err: "the tunnel was closed", Name: name}
		default:
		}
	}
}

func addresses(m dnsmessage.Message) (out []netip.Addr) {
	for _, a := range m.Answers { // CNAME records stand before what they lead to
		switch r := a.Body.(type) {
		case *dnsmessage.AResource:
			out = append(out, netip.AddrFrom4(r.A))
		case *dnsmessage.AAAAResource:
			out = append(out, netip.AddrFrom16(r.AAAA))
		}
	}
	return out
}

// exchange asks one server once, over UDP. An answer that does not fit the
// question is not listened to.
func (t *Tunnel) exchange(ctx context.Context, server netip.Addr, q dnsmessage.Question) (m dnsmessage.Message, err error) {
	c, err := t.stack.Dial(ctx, "udp", netip.AddrPortFrom(server, 53))
	if err != nil {
		return m, err
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	var id [2]byte
	rand.Read(id[:])
	m = dnsmessage.Message{
		Header:    dnsmessage.Header{ID: binary.BigEndian.Uint16(id[:]), RecursionDesired: true},
		Questions: []dnsmessage.Question{q},
	}
	b, err := m.Pack()
	if err != nil {
		return m, err
	}
	if _, err := c.Write(b); err != nil {
		return m, err
	}
	for b := make([]byte, 1500); ; {
		n, err := c.Read(b)
		if err != nil {
			return m, err
		}
		var got dnsmessage.Message
		if got.Unpack(b[:n]) == nil && got.Response && got.ID == m.ID && len(got.Questions) == 1 &&
			got.Questions[0].Type == q.Type && strings.EqualFold(got.Questions[0].Name.String(), q.Name.String()) {
			return got, nil
		}
	}
}
