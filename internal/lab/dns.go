package lab

import (
	"net/netip"

	"golang.org/x/net/dns/dnsmessage"
)

// ServeDNS answers DNS questions on UDP port 53 of s, as the little name server
// in a router does, until the stack loses power or the returned endpoint is
// closed. lookup may be nil for public DNS (World.Name). It must not block.
func ServeDNS(s *Stack, lookup func(name string) (netip.Addr, bool)) (*UDPConn, error) {
	u, err := s.ListenUDP(53)
	if err != nil {
		return nil, err
	}
	all := s.w.LookupAll
	if lookup != nil {
		all = func(name string) ([]netip.Addr, bool) {
			a, ok := lookup(name)
			return []netip.Addr{a}, ok
		}
	}
	go func() {
		b := make([]byte, 1500)
		for {
			n, from, to, err := u.Receive(b)
			if err != nil {
				return
			}
			if answer, ok := answerDNS(b[:n], all); ok {
				u.WriteFrom(answer, to.Addr(), from)
			}
		}
	}()
	return u, nil
}

// answerDNS makes the answer to one DNS question: address records, an empty
// answer for another kind of question about a known name, or "no such name".
func answerDNS(question []byte, lookup func(name string) ([]netip.Addr, bool)) ([]byte, bool) {
	var p dnsmessage.Parser
	head, err := p.Start(question)
	if err != nil || head.Response {
		return nil, false
	}
	q, err := p.Question()
	if err != nil {
		return nil, false
	}
	name := q.Name.String()
	if len(name) > 1 {
		name = name[:len(name)-1]
	}
	addrs, ok := lookup(name)
	m := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: head.ID, Response: true, RecursionDesired: head.RecursionDesired, RecursionAvailable: true},
		Questions: []dnsmessage.Question{q},
	}
	rh := dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 60}
	if !ok {
		m.RCode = dnsmessage.RCodeNameError
	}
	for _, addr := range addrs {
		switch {
		case ok && q.Type == dnsmessage.TypeA && addr.Is4():
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: rh, Body: &dnsmessage.AResource{A: addr.As4()}})
		case ok && q.Type == dnsmessage.TypeAAAA && addr.Is6():
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: rh, Body: &dnsmessage.AAAAResource{AAAA: addr.As16()}})
		}
	}
	out, err := m.Pack()
	return out, err == nil
}
