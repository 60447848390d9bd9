package uplink

import (
	"bufio"
	"bytes"
	"fmt"
	"net/http"
	"net/netip"
	"net/textproto"
	"strconv"
	"strings"
	"time"
)

// ssdpPort is where SSDP listens (UPnP Device Architecture 1.1, 1.2.2).
const ssdpPort = 1900

var ssdpGroup = netip.AddrPortFrom(netip.AddrFrom4([4]byte{239, 255, 255, 250}), ssdpPort)

// searches are what is searched for. The last is TR-064's own, which AVM's boxes
// answer.
var searches = []string{
	"urn:schemas-upnp-org:device:InternetGatewayDevice:2",
	"urn:schemas-upnp-org:device:InternetGatewayDevice:1",
	"urn:schemas-upnp-org:service:WANIPConnection:1",
	"urn:schemas-upnp-org:service:WANPPPConnection:1",
	"urn:dslforum-org:device:InternetGatewayDevice:1",
}

// mSearch writes a search. To one host it has no MX, which is for groups only:
// the answer comes at once (UPnP Device Architecture 1.1, 1.3.2).
func mSearch(host netip.AddrPort, target string) []byte {
	var mx string
	if host.Addr().IsMulticast() {
		mx = "MX: 1\r\n"
	}
	return fmt.Appendf(nil, "M-SEARCH * HTTP/1.1\r\nHOST: %s\r\nMAN: \"ssdp:discover\"\r\n%sST: %s\r\nUSER-AGENT: heimweg UPnP/1.1\r\n\r\n", host, mx, target)
}

// parseSSDP reads the answer to a search: where the description is.
func parseSSDP(b []byte) (place, bool) {
	r := textproto.NewReader(bufio.NewReader(bytes.NewReader(b)))
	first, err := r.ReadLine()
	if err != nil || !strings.HasPrefix(first, "HTTP/1.") || !strings.Contains(first, " 200") {
		return place{}, false
	}
	h, err := r.ReadMIMEHeader()
	if err != nil && h.Get("Location") == "" {
		return place{}, false // an answer without its last empty line is good enough
	}
	location := h.Get("Location")
	if !strings.HasPrefix(strings.ToLower(location), "http://") {
		return place{}, false
	}
	return parsePlace(location, place{port: 80, path: "/"})
}

// challenge is what a router asks before it believes a password (RFC 7616; AVM's
// boxes use MD5 with qop "auth").
type challenge struct{ realm, nonce, opaque, algorithm, qop string }

// parseChallenge reads the WWW-Authenticate headers.
func parseChallenge(h http.Header) (challenge, bool) {
	for i, v := range h.Values("WWW-Authenticate") {
		if i == 8 {
			break
		}
		scheme, rest, _ := strings.Cut(strings.TrimSpace(v), " ")
		if !strings.EqualFold(scheme, "digest") || len(rest) > 2048 {
			continue
		}
		var c challenge
		for name, value := range pairs(rest) {
			switch strings.ToLower(name) {
			case "realm":
				c.realm = value
			case "nonce":
				c.nonce = value
			case "opaque":
				c.opaque = value
			case "algorithm":
				c.algorithm = strings.ToUpper(value)
			case "qop":
				for _, q := range strings.Split(value, ",") {
					if strings.EqualFold(strings.TrimSpace(q), "auth") {
						c.qop = "auth"
					}
				}
			}
		}
		if c.nonce != "" && (c.algorithm == "" || c.algorithm == "MD5") {
			return c, true
		}
	}
	return challenge{}, false
}

// pairs walks over name=value and name="value", separated by commas.
func pairs(s string) func(yield func(string, string) bool) {
	return func(yield func(string, string) bool) {
		for s != "" {
			s = strings.TrimLeft(s, " \t,")
			name, rest, ok := strings.Cut(s, "=")
			if !ok {
				return
			}
			var value strings.Builder
			if strings.HasPrefix(rest, `"`) {
				rest = rest[1:]
				for rest != "" && rest[0] != '"' {
					if rest[0] == '\\' && len(rest) > 1 {
						rest = rest[1:]
					}
					value.WriteByte(rest[0])
					rest = rest[1:]
				}
				rest = strings.TrimPrefix(rest, `"`)
			} else {
				v, after, _ := strings.Cut(rest, ",")
				value.WriteString(strings.TrimSpace(v))
				rest = after
			}
			s = rest
			if !yield(strings.TrimSpace(name), value.String()) {
				return
			}
		}
	}
}

// maxAge bounds what is believed of a lease: a year.
const maxAge = 365 * 24 * time.Hour

// seconds reads a number of seconds.
func seconds(text string) time.Duration {
	n, err := strconv.ParseUint(strings.TrimSpace(text), 10, 32)
	if err != nil {
		return 0
	}
	return min(time.Duration(n)*time.Second, maxAge)
}
