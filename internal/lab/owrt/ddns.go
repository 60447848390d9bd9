package owrt

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/heimweg/heimweg/internal/lab/owrt/ash"
	"github.com/heimweg/heimweg/internal/uci"
)

// What the package ddns-scripts brings (openwrt/packages net/ddns-scripts, 2.8.2).
const (
	ddnsConfig = `config ddns 'global'
	option ddns_dateformat '%F %R'
	option ddns_loglines '250'
	option upd_privateip '0'

config service 'myddns_ipv4'
	option service_name 'dyn.com'
	option lookup_host 'yourhost.example.com'
	option domain 'yourhost.example.com'
	option username 'your_username'
	option password 'your_password'
	option interface 'wan'
	option ip_source 'network'
	option ip_network 'wan'
`
	ddnsInit = `#!/bin/sh /etc/rc.common
START=95
STOP=10
boot() { return 0; }
reload() { restart; }
restart() {
	/usr/lib/ddns/dynamic_dns_updater.sh -- stop
	sleep 1
	/usr/lib/ddns/dynamic_dns_updater.sh -- start
}
start() { /usr/lib/ddns/dynamic_dns_updater.sh -- start; }
stop() { /usr/lib/ddns/dynamic_dns_updater.sh -- stop; return 0; }
`
	ddnsHotplug = `#!/bin/sh
case "$ACTION" in
	ifup) /etc/init.d/ddns enabled && /usr/lib/ddns/dynamic_dns_updater.sh -n "$INTERFACE" -- start ;;
	ifdown) /usr/lib/ddns/dynamic_dns_updater.sh -n "$INTERFACE" -- stop ;;
esac
`
)

// ddnsServices are the services of the package's list that the lab has: name →
// update_url. The real list has about 89 (facts 6.7).
var ddnsServices = map[string]string{
	"dyn.example.net": "http://dyn.example.net/update?host=[DOMAIN]&password=[PASSWORD]&ip=[IP]",
}

// updaters are the processes that follow the address, one for each section.
type updaters struct {
	mu  sync.Mutex
	run map[string]context.CancelFunc
}

// ddnsProgram is dynamic_dns_updater.sh, which init and hotplug call.
func (s *system) ddnsProgram(p *ash.Proc, args []string) int {
	network, command := "", ""
	for i := 1; i < len(args); i++ {
		switch {
		case args[i] == "-n" && i+1 < len(args):
			i++
			network = args[i]
		case args[i] == "-v" && i+1 < len(args):
			i++
		case args[i] != "--":
			command = args[i]
		}
	}
	doc := s.config("ddns")
	if doc == nil || command != "start" && command != "stop" {
		fmt.Fprintf(p.Stderr(), "dynamic_dns_updater.sh: unknown command - %s\n", command)
		return 1
	}
	for _, sec := range doc.OfType("service") {
		iface, ok := sec.Get("interface")
		if !ok {
			iface = "wan"
		}
		if network != "" && iface != network {
			continue
		}
		s.ddnsStop(sec.Name)
		if command == "start" && sec.Bool("enabled", false) {
			s.ddnsStart(sec)
		}
	}
	return 0
}

func (s *system) ddnsStop(section string) {
	s.ddns.mu.Lock()
	defer s.ddns.mu.Unlock()
	if cancel := s.ddns.run[section]; cancel != nil {
		cancel()
		delete(s.ddns.run, section)
	}
}

func (s *system) ddnsStart(sec uci.Section) {
	ctx, cancel := context.WithCancel(s.k.Context())
	s.ddns.mu.Lock()
	if s.ddns.run == nil {
		s.ddns.run = map[string]context.CancelFunc{}
	}
	s.ddns.run[sec.Name] = cancel
	s.ddns.mu.Unlock()
	s.soon(0, func() { s.ddnsFollow(ctx, sec, true) })
}

// ddnsFollow is one round of the updater's endless loop; it arranges the next.
func (s *system) ddnsFollow(ctx context.Context, sec uci.Section, first bool) {
	if ctx.Err() != nil {
		return
	}
	say := func(format string, args ...any) {
		s.b.logf("user.notice ddns-scripts", "%s: %s", sec.Name, fmt.Sprintf(format, args...))
	}
	target, why := ddnsURL(sec)
	host, _ := sec.Get("lookup_host")
	if why != "" || host == "" {
		say("%s - TERMINATE", why+map[bool]string{true: "Missing 'lookup_host'"}[host == ""])
		return
	}
	addr, err := s.ddnsAddress(ctx, sec)
	if err != nil {
		say("%v, retry in 60 seconds", err)
		s.soon(time.Minute, func() { s.ddnsFollow(ctx, sec, first) })
		return
	}
	registered, _ := s.b.world.Lookup(host)
	if first || registered != addr {
		switch answer, err := s.ddnsSend(ctx, sec, target, addr); {
		case err != nil:
			say("%v, retry in 60 seconds", err)
			s.soon(time.Minute, func() { s.ddnsFollow(ctx, sec, first) })
			return
		default:
			say("DDNS Provider answered: %s", answer)
		}
	}
	s.soon(ddnsInterval(sec), func() { s.ddnsFollow(ctx, sec, false) })
}

// ddnsInterval is the time between two looks; below 5 minutes it is 5.
func ddnsInterval(sec uci.Section) time.Duration {
	n := 10
	if v, ok := sec.Get("check_interval"); ok {
		n, _ = strconv.Atoi(v)
	}
	unit := time.Minute
	if v, _ := sec.Get("check_unit"); v == "hours" {
		unit = time.Hour
	} else if v == "seconds" {
		unit = time.Second
	}
	return max(5*time.Minute, time.Duration(n)*unit)
}

// ddnsURL is the address to call with all but the address filled in.
func ddnsURL(sec uci.Section) (target, why string) {
	target, _ = sec.Get("update_url")
	if name, ok := sec.Get("service_name"); ok {
		target = ddnsServices[name]
	}
	if target == "" {
		return "", "No update_url found/defined or no update_script found/defined!"
	}
	for _, f := range []struct{ mark, option string }{{"[DOMAIN]", "domain"}, {"[USERNAME]", "username"}, {"[PASSWORD]", "password"}} {
		v, _ := sec.Get(f.option)
		if v == "" && strings.Contains(target, f.mark) {
			return "", "Service section missing '" + f.option + "'"
		}
		target = strings.ReplaceAll(target, f.mark, url.QueryEscape(v))
	}
	if sec.Bool("use_https", false) {
		target = strings.Replace(target, "http:", "https:", 1)
	}
	return target, ""
}

var dottedQuad = regexp.MustCompile(`[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}`)

// ddnsAddress finds the address to tell, by ip_source.
func (s *system) ddnsAddress(ctx context.Context, sec uci.Section) (netip.Addr, error) {
	six := sec.Bool("use_ipv6", false)
	if source, _ := sec.Get("ip_source"); source == "web" {
		page, ok := sec.Get("ip_url")
		if !ok {
			page = "http://checkip.dyndns.com"
		}
		text, err := s.ddnsGet(ctx, page)
		if err != nil {
			return netip.Addr{}, err
		}
		return netip.ParseAddr(dottedQuad.FindString(text))
	}
	network, ok := sec.Get("ip_network")
	if !ok {
		network = map[bool]string{true: "wan6", false: "wan"}[six]
	}
	i, found := s.net.find(network)
	if found {
		for _, p := range i.addrs {
			if p.Addr().Is6() == six && !p.Addr().IsLinkLocalUnicast() {
				return p.Addr(), nil
			}
		}
	}
	return netip.Addr{}, ddnsLog(fmt.Sprintf("Can not detect local IP using network_get_ipaddr '%s'", network))
}

// A ddnsLog is a line of the scripts' log, in their words.
type ddnsLog string

func (l ddnsLog) Error() string { return string(l) }

// ddnsSend tells the service; a private address is never told (upd_privateip 0).
func (s *system) ddnsSend(ctx context.Context, sec uci.Section, target string, addr netip.Addr) (string, error) {
	if addr.IsPrivate() || netip.MustParsePrefix("100.64.0.0/10").Contains(addr) {
		return "", ddnsLog(fmt.Sprintf("No or private or invalid IP '%s' given! Please check your configuration", addr))
	}
	text, err := s.ddnsGet(ctx, strings.ReplaceAll(target, "[IP]", addr.String()))
	if err == nil && !strings.HasPrefix(text, "good") && !strings.HasPrefix(text, "nochg") {
		err = fmt.Errorf("the service answered %s", strings.TrimSpace(text))
	}
	return strings.TrimSpace(text), err
}

// ddnsGet is uclient-fetch: it trusts whom the image trusts.
func (s *system) ddnsGet(ctx context.Context, target string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return "", err
	}
	client := http.Client{Transport: &http.Transport{
		DialContext: s.b.stack.Dial, DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: s.b.opt.Roots},
	}}
	res, err := client.Do(r)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(io.LimitReader(res.Body, 4096))
	return string(text), err
}
