package igd

import (
	"bufio"
	"bytes"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Service types.
const (
	upnpService = "urn:schemas-upnp-org:service:"
	avmService  = "urn:dslforum-org:service:"
)

// connection is the type of the service that maps ports, of a version.
func (s *Server) connection(version int) string {
	if s.opt.PPP {
		return "WANPPPConnection:1"
	}
	return fmt.Sprintf("WANIPConnection:%d", version)
}

// control is one service with the place of its SOAP.
type control struct{ kind, path string }

// description is a document with its services.
type description struct {
	path     string
	device   string // its type
	services []control
}

// descriptions are all documents: one of the offered version, two on a FRITZ!Box
// (igddesc.xml, igd2desc.xml), and AVM's own.
func (s *Server) descriptions() []description {
	var out []description
	upnp := func(path, where string, version int) {
		d := description{path: path, device: fmt.Sprintf("urn:schemas-upnp-org:device:InternetGatewayDevice:%d", version)}
		d.services = []control{{upnpService + s.connection(version), where + "WANIPConn1"}}
		d.services = append(d.services, control{upnpService + "WANCommonInterfaceConfig:1", where + "WANCommonIFC1"})
		if s.opt.Firewall6 && version == 2 {
			d.services = append(d.services, control{upnpService + "WANIPv6FirewallControl:1", where + "WANIPv6Firewall1"})
		}
		out = append(out, d)
	}
	switch {
	case s.avm() && s.opt.UPnP != 0:
		upnp("/igd2desc.xml", "/igd2upnp/control/", 2)
		upnp("/igddesc.xml", "/igdupnp/control/", 1)
	case s.opt.UPnP != 0:
		upnp("/rootDesc.xml", "/ctl/", s.opt.UPnP)
	}
	if s.avm() {
		out = append(out, description{"/tr64desc.xml", "urn:dslforum-org:device:InternetGatewayDevice:1", []control{
			{avmService + "Layer3Forwarding:1", "/upnp/control/layer3forwarding"},
			{avmService + "X_AVM-DE_MyFritz:1", "/upnp/control/x_myfritz"},
			{avmService + "LANConfigSecurity:1", "/upnp/control/lanconfigsecurity"},
			{avmService + "WANPPPConnection:1", "/upnp/control/wanpppconn1"},
			{avmService + "WANIPConnection:1", "/upnp/control/wanipconnection1"},
		}})
	}
	return out
}

// text is the document (UPnP Device Architecture 1.1, 2.3): the connection is
// three devices deep, as in every IGD; what belongs to the line is one above.
func (d description) text(maker, model string) string {
	var line, services strings.Builder
	for i, c := range d.services {
		to := &services
		if strings.Contains(c.kind, "WANCommon") {
			to = &line
		}
		fmt.Fprintf(to, "<service><serviceType>%s</serviceType><serviceId>urn:upnp-org:serviceId:S%d</serviceId><SCPDURL>/S%d.xml</SCPDURL><controlURL>%s</controlURL><eventSubURL>/evt/%d</eventSubURL></service>",
			c.kind, i, i, c.path, i)
	}
	device := func(kind, more string) string {
		return fmt.Sprintf("<device><deviceType>%s</deviceType><friendlyName>%s</friendlyName><manufacturer>%s</manufacturer><modelName>%s</modelName><UDN>uuid:00000000-0000-0000-0000-000000000001</UDN>%s</device>",
			kind, model, maker, model, more)
	}
	version := d.device[strings.LastIndex(d.device, ":"):]
	wan := strings.TrimSuffix(d.device[:strings.LastIndex(d.device, ":")], "InternetGatewayDevice")
	inner := device(wan+"WANConnectionDevice"+version, "<serviceList>"+services.String()+"</serviceList>")
	middle := device(wan+"WANDevice"+version, "<serviceList>"+line.String()+"</serviceList><deviceList>"+inner+"</deviceList>")
	return `<?xml version="1.0"?>` + "\n" + `<root xmlns="urn:schemas-upnp-org:device-1-0"><specVersion><major>1</major><minor>0</minor></specVersion>` +
		device(d.device, "<deviceList>"+middle+"</deviceList>") + "</root>\n"
}

// answerSSDP answers a search (UPnP Device Architecture 1.1, 1.3.3): once for each
// description that has what is searched for.
func (s *Server) answerSSDP(_ netip.AddrPort, b []byte) [][]byte {
	r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(b)))
	if err != nil || r.Method != "M-SEARCH" || r.Header.Get("Man") != `"ssdp:discover"` {
		return nil
	}
	s.count("M-SEARCH")
	target := r.Header.Get("St")
	var out [][]byte
	for _, d := range s.descriptions() {
		has := d.device == target || target == "ssdp:all" || target == "upnp:rootdevice" ||
			slices.ContainsFunc(d.services, func(c control) bool { return c.kind == target })
		// A newer device answers to its older names, too (1.3.2).
		older := target == strings.TrimSuffix(d.device, "2")+"1" && !s.avm()
		if has || older {
			out = append(out, fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nCACHE-CONTROL: max-age=120\r\nST: %s\r\nUSN: uuid:00000000-0000-0000-0000-000000000001::%s\r\nEXT:\r\nSERVER: Lab/1 UPnP/1.1 igd/1\r\nLOCATION: %s\r\n\r\n",
				target, target, s.url(d.path)))
		}
	}
	return out
}

// listenHTTP serves descriptions and SOAP.
func (s *Server) listenHTTP() error {
	l, err := s.net.ListenTCP(s.port())
	if err != nil {
		return err
	}
	server := &http.Server{Handler: http.HandlerFunc(s.serve)}
	s.closers = append(s.closers, func() { server.Close() })
	go server.Serve(l)
	return nil
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	f := s.faults()
	wait := f.Slow
	if f.Silent {
		wait = time.Hour
	}
	if wait > 0 {
		t := time.NewTimer(wait)
		defer t.Stop()
		select {
		case <-t.C:
		case <-s.done:
			return
		case <-r.Context().Done():
			return
		}
	}
	maker := "Lab"
	if s.avm() {
		maker = "AVM Berlin"
	}
	for _, d := range s.descriptions() {
		if r.Method == http.MethodGet && r.URL.Path == d.path {
			w.Header().Set("Content-Type", `text/xml; charset="utf-8"`)
			io.WriteString(w, d.text(maker, s.model()))
			return
		}
		for _, c := range d.services {
			if r.Method == http.MethodPost && r.URL.Path == c.path {
				s.soap(w, r, c)
				return
			}
		}
	}
	http.NotFound(w, r)
}

// upnpError is a fault by number.
type upnpError int

var upnpWords = map[upnpError]string{401: "Invalid Action", 402: "Invalid Args", 403: "Not available Action", 501: "Action Failed",
	600: "Argument Value Invalid", 606: "Action Not Authorized", 702: "FirewallDisabled", 703: "InboundPinholeNotAllowed", 704: "NoSuchEntry",
	713: "SpecifiedArrayIndexInvalid", 714: "NoSuchEntryInArray", 715: "WildCardNotPermittedInSrcIP", 716: "WildCardNotPermittedInExtPort",
	718: "ConflictInMappingEntry", 725: "OnlyPermanentLeasesSupported", 728: "NoPortMapsAvailable",
	866: "second factor authentication required"}

// values are arguments, in the order in which they go out.
type values [][2]string

// soap does one action.
func (s *Server) soap(w http.ResponseWriter, r *http.Request, c control) {
	service, action, _ := strings.Cut(strings.Trim(r.Header.Get("Soapaction"), `"`), "#")
	s.count(action)
	tr064 := strings.HasPrefix(c.kind, avmService)
	free := action == "X_AVM-DE_GetUserList" // for everybody in the LAN
	if tr064 && !free && !s.loggedIn(w, r) {
		return
	}
	args, err := arguments(io.LimitReader(r.Body, 1<<16), action)
	var out values
	code := upnpError(401)
	if err == nil && service == c.kind {
		from, _ := netip.ParseAddrPort(r.RemoteAddr)
		a := asking{s: s, from: from.Addr().Unmap().WithZone(""), tr064: tr064, version: c.kind[len(c.kind)-1:], args: args}
		out, code = a.do(c.kind, action)
	}
	w.Header().Set("Content-Type", `text/xml; charset="utf-8"`)
	const envelope = `<?xml version="1.0"?>` + "\n" + `<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/" s:encodingStyle="http://schemas.xmlsoap.org/soap/encoding/"><s:Body>%s</s:Body></s:Envelope>`
	if code != 0 {
		w.WriteHeader(http.StatusInternalServerError)
		fmt.Fprintf(w, envelope, fmt.Sprintf(`<s:Fault><faultcode>s:Client</faultcode><faultstring>UPnPError</faultstring><detail><UPnPError xmlns="urn:schemas-upnp-org:control-1-0"><errorCode>%d</errorCode><errorDescription>%s</errorDescription></UPnPError></detail></s:Fault>`, code, upnpWords[code]))
		return
	}
	var b strings.Builder
	for _, v := range out {
		fmt.Fprintf(&b, "<%s>", v[0])
		xml.EscapeText(&b, []byte(v[1]))
		fmt.Fprintf(&b, "</%s>", v[0])
	}
	fmt.Fprintf(w, envelope, fmt.Sprintf(`<u:%sResponse xmlns:u="%s">%s</u:%sResponse>`, action, c.kind, b.String(), action))
}

// arguments reads the body of an action.
func arguments(r io.Reader, action string) (map[string]string, error) {
	var body struct {
		Body struct {
			Action struct {
				XMLName xml.Name
				Args    []struct {
					XMLName xml.Name
					Text    string `xml:",chardata"`
				} `xml:",any"`
			} `xml:",any"`
		}
	}
	if err := xml.NewDecoder(r).Decode(&body); err != nil {
		return nil, err
	}
	if got := body.Body.Action.XMLName.Local; got != action {
		return nil, fmt.Errorf("header says %s, body %s", action, got)
	}
	out := map[string]string{}
	for _, a := range body.Body.Action.Args {
		out[a.XMLName.Local] = strings.TrimSpace(a.Text)
	}
	return out, nil
}

// asking is one request.
type asking struct {
	s       *Server
	from    netip.Addr
	tr064   bool
	version string
	args    map[string]string
}

func (a asking) do(kind, action string) (values, upnpError) {
	a.s.mu.Lock()
	defer a.s.mu.Unlock()
	switch {
	case strings.Contains(kind, "WANIPv6FirewallControl"):
		return a.firewall6(action)
	case strings.Contains(kind, "Layer3Forwarding") && action == "GetDefaultConnectionService":
		return values{{"NewDefaultConnectionService", "1." + strings.TrimSuffix(a.s.connection(1), ":1") + ".1"}}, 0
	case strings.Contains(kind, "WANCommonInterfaceConfig") && action == "GetCommonLinkProperties":
		return values{{"NewWANAccessType", "DSL"}, {"NewLayer1UpstreamMaxBitRate", "40000000"}, {"NewLayer1DownstreamMaxBitRate", "100000000"}, {"NewPhysicalLinkStatus", "Up"}}, 0
	case strings.Contains(kind, "LANConfigSecurity") && action == "X_AVM-DE_GetUserList" && !a.s.opt.Faults.NoUsers:
		list := `<List><Username last_user="0">somebody</Username><Username last_user="1">` + a.s.opt.TR064.User + `</Username></List>`
		return values{{"NewX_AVM-DE_UserList", list}}, 0
	case strings.Contains(kind, "MyFritz") && action == "GetInfo":
		on := map[bool]string{true: "1", false: "0"}[a.s.opt.MyFRITZ != ""]
		return values{{"NewEnabled", on}, {"NewDeviceRegistered", on}, {"NewDynDNSName", a.s.opt.MyFRITZ}, {"NewPort", "443"}}, 0
	case !strings.Contains(kind, "Connection:"):
		return nil, 401
	case a.tr064 && !strings.Contains(kind, strings.TrimSuffix(a.s.connection(1), ":1")):
		return nil, 501 // the connection that is not in use
	}
	switch action {
	case "GetExternalIPAddress":
		p, ok := a.s.public()
		if !ok {
			return values{{"NewExternalIPAddress", ""}}, 0
		}
		return values{{"NewExternalIPAddress", p.String()}}, 0
	case "GetStatusInfo":
		return values{{"NewConnectionStatus", "Connected"}, {"NewLastConnectionError", "ERROR_NONE"}, {"NewUptime", fmt.Sprint(a.s.epoch())}}, 0
	case "GetGenericPortMappingEntry":
		return a.generic()
	case "GetSpecificPortMappingEntry":
		return a.specific()
	case "AddPortMapping":
		return nil, a.add()
	case "DeletePortMapping":
		return nil, a.remove()
	}
	return nil, 401
}

// number reads an unsigned argument.
func (a asking) number(name string, bits int) (uint64, bool) {
	n, err := strconv.ParseUint(a.args[name], 10, bits)
	return n, err == nil
}

func (a asking) key() (proto string, external uint16, ok bool) {
	proto = lower(a.args["NewProtocol"])
	n, ok := a.number("NewExternalPort", 16)
	_, has := a.args["NewRemoteHost"]
	return proto, uint16(n), ok && has && (proto == "udp" || proto == "tcp")
}

func (a asking) entry(e Entry) values {
	lease := 0
	if !e.Ends.IsZero() {
		lease = int(time.Until(e.Ends) / time.Second)
	}
	return values{{"NewInternalPort", fmt.Sprint(e.To.Port())}, {"NewInternalClient", e.To.Addr().String()}, {"NewEnabled", map[bool]string{true: "0", false: "1"}[e.Disabled]},
		{"NewPortMappingDescription", e.Description}, {"NewLeaseDuration", fmt.Sprint(lease)}}
}

func (a asking) generic() (values, upnpError) {
	i, ok := a.number("NewPortMappingIndex", 16)
	list := a.s.table()
	switch {
	case !ok:
		return nil, 402
	case int(i) >= len(list) && a.s.opt.Faults.Endless && len(list) > 0:
		i = uint64(len(list) - 1)
	case int(i) >= len(list):
		return nil, 713
	}
	e := list[i]
	return append(values{{"NewRemoteHost", ""}, {"NewExternalPort", fmt.Sprint(e.External)}, {"NewProtocol", strings.ToUpper(e.Proto)}}, a.entry(e)...), 0
}

func (a asking) specific() (values, upnpError) {
	proto, external, ok := a.key()
	if !ok {
		return nil, 402
	}
	if a.s.opt.Faults.NoReadBack {
		return nil, 401
	}
	for _, e := range a.s.table() {
		if e.Proto == proto && e.External == external {
			return a.entry(e), 0
		}
	}
	return nil, 714
}

// week is what a lease of 0 means in version 2, and the most (WANIPConnection:2 2.3.16).
const week = 7 * 24 * time.Hour

func (a asking) add() upnpError {
	proto, external, ok := a.key()
	inside, ok2 := a.number("NewInternalPort", 16)
	lease, ok3 := a.number("NewLeaseDuration", 32)
	client, err := netip.ParseAddr(a.args["NewInternalClient"])
	f := a.s.opt.Faults
	switch {
	case !ok || !ok2 || !ok3 || err != nil || inside == 0:
		return 402
	case external == 0:
		return 716
	case a.tr064 && f.SecondFactor:
		return 866
	case f.Refuse != 0:
		return upnpError(f.Refuse)
	case f.NoPublic:
		return 501 // miniupnpd (facts deps 8)
	case f.OwnOnly && client != a.from && a.tr064:
		return 600 // FRITZ!OS 8.03 (kbr/fritzconnection 245)
	case f.OwnOnly && client != a.from:
		return 606 // FRITZ!Box 7490 (lontivero/Open.NAT 80)
	case f.OnlyPermanent && lease != 0:
		return 725
	}
	if to, _ := a.s.holder(proto, external); to.IsValid() && to.Addr() != client {
		return 718
	}
	if f.Forgetful {
		return 0
	}
	d := time.Duration(lease) * time.Second
	if a.version == "2" {
		if d == 0 {
			d = week
		}
		d = min(d, a.s.most(week))
	}
	by := "UPnP"
	if a.tr064 {
		by = "TR-064"
	}
	a.s.put(Entry{Proto: proto, External: external, To: netip.AddrPortFrom(client, uint16(inside)), Description: a.args["NewPortMappingDescription"], By: by}, d)
	return 0
}

func (a asking) remove() upnpError {
	proto, external, ok := a.key()
	if !ok {
		return 402
	}
	if a.tr064 && a.s.opt.Faults.SecondFactor {
		return 866
	}
	to, e := a.s.holder(proto, external)
	switch {
	case !to.IsValid():
		return 714
	case a.s.opt.Faults.OwnOnly && to.Addr() != a.from:
		return 606
	case e != nil:
		a.s.drop(e)
	default:
		a.s.box.Unmap(proto, external)
	}
	return 0
}

// firewall6 is WANIPv6FirewallControl:1.
func (a asking) firewall6(action string) (values, upnpError) {
	a.s.closeOld()
	refuse := upnpError(a.s.opt.Faults.Refuse)
	if action == "GetFirewallStatus" {
		return values{{"FirewallEnabled", "1"}, {"InboundPinholeAllowed", map[bool]string{true: "0", false: "1"}[refuse == 703]}}, 0
	}
	lease, _ := a.number("LeaseTime", 32)
	if n, ok := a.number("NewLeaseTime", 32); ok {
		lease = n
	}
	ends := time.Now().Add(time.Duration(lease) * time.Second)
	if action == "AddPinhole" {
		return a.addPinhole(refuse, lease, ends)
	}
	id, ok := a.number("UniqueID", 16)
	at := slices.IndexFunc(a.s.pinholes, func(p Pinhole) bool { return p.ID == uint16(id) })
	switch {
	case !ok:
		return nil, 402
	case at < 0:
		return nil, 704
	case a.s.pinholes[at].To.Addr() != a.from:
		return nil, 606
	case action == "UpdatePinhole" && lease >= 1 && lease <= 86400:
		a.s.pinholes[at].Ends = ends
		a.s.until(ends)
	case action == "UpdatePinhole":
		return nil, 402
	case action == "DeletePinhole":
		a.s.pinholes = slices.Delete(a.s.pinholes, at, at+1)
	default:
		return nil, 401
	}
	a.s.tellPinholes()
	return nil, 0
}

func (a asking) addPinhole(refuse upnpError, lease uint64, ends time.Time) (values, upnpError) {
	client, err := netip.ParseAddr(a.args["InternalClient"])
	port, ok := a.number("InternalPort", 16)
	proto, ok2 := a.number("Protocol", 8)
	switch {
	case err != nil || !ok || !ok2 || lease < 1 || lease > 86400:
		return nil, 402
	case refuse != 0:
		return nil, refuse
	case client != a.from: // from another address, IPv4 too
		return nil, 606
	}
	a.s.lastID++
	a.s.pinholes = append(a.s.pinholes, Pinhole{ID: a.s.lastID, Proto: uint8(proto), To: netip.AddrPortFrom(client, uint16(port)), Ends: ends})
	a.s.until(ends)
	a.s.tellPinholes()
	return values{{"UniqueID", fmt.Sprint(a.s.lastID)}}, 0
}
