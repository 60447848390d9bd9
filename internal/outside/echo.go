package outside

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"
)

// largestPage is how much of a page is read.
const largestPage = 4096

// Echo asks a web page that says who calls: its body is an address, or JSON with
// the address as "ip" or "address". Only https is asked, because anybody on the
// way could answer for http. The errors are those of STUN.
func Echo(ctx context.Context, w Way, page string, f Family) (netip.Addr, error) {
	var none netip.Addr
	u, err := url.Parse(page)
	if err != nil || u.Scheme != "https" || u.Hostname() == "" || u.User != nil {
		return none, &ServerError{page, "it is not an https address such as https://ip.example.net/"}
	}
	if w.Dial == nil {
		return none, &NoWayError{u.Host, f, errors.New("no TCP here")}
	}
	start := time.Now()
	ctx, cancel := context.WithTimeout(ctx, Patience)
	defer cancel()
	t := &http.Transport{
		DialContext: func(ctx context.Context, _, address string) (net.Conn, error) {
			return w.connect(ctx, address, u.Host, f)
		},
		TLSClientConfig:        &tls.Config{RootCAs: w.Roots},
		DisableKeepAlives:      true,
		MaxResponseHeaderBytes: 8 << 10,
	}
	defer t.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return none, &ServerError{page, "it is not an https address"}
	}
	req.Header.Set("User-Agent", "heimweg")
	req.Header.Set("Accept", "text/plain, application/json")
	resp, err := t.RoundTrip(req) // no client: it would follow redirects
	if err != nil {
		return none, explain(err, u.Host, f, start)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return none, &RefusedError{u.Host, resp.StatusCode}
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, largestPage+1))
	if err != nil {
		return none, classify(err, u.Host, f, start)
	}
	a, ok := readPage(body)
	switch {
	case !ok:
		return none, &NonsenseError{u.Host, "its page does not say an address"}
	case !f.has(a):
		return none, &NonsenseError{u.Host, "its page says an address of the other family"}
	}
	return a, nil
}

// connect opens a connection of one family. When a name cannot be resolved from
// here, the other end of the way may know it.
func (w Way) connect(ctx context.Context, address, server string, f Family) (net.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	a, err := w.address(ctx, host, server, f)
	if err != nil {
		return nil, err
	}
	return w.Dial(ctx, f.network("tcp"), net.JoinHostPort(a.String(), port))
}

func explain(err error, server string, f Family, start time.Time) error {
	var noWay *NoWayError
	var name *ServerError
	var cert *tls.CertificateVerificationError
	switch {
	case errors.As(err, &noWay):
		return noWay
	case errors.As(err, &name):
		return name
	case errors.As(err, &cert):
		return &NonsenseError{server, "nobody vouches for its certificate"}
	}
	return classify(err, server, f, start)
}

// readPage finds the one address that a page says.
func readPage(body []byte) (netip.Addr, bool) {
	if len(body) > largestPage {
		return netip.Addr{}, false
	}
	text := strings.TrimSpace(string(body))
	if strings.HasPrefix(text, "{") {
		var j struct{ IP, Address string }
		if json.Unmarshal(body, &j) != nil {
			return netip.Addr{}, false
		}
		if text = j.IP; text == "" {
			text = j.Address
		}
	}
	a, err := netip.ParseAddr(text)
	if err != nil || a.Zone() != "" {
		return netip.Addr{}, false
	}
	return a.Unmap(), true
}
