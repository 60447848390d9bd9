package uplink

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// arg is one argument of a SOAP action, in the order in which the service's
// description has them: some routers take them by place.
type arg struct{ name, value string }

// envelope writes the request of an action.
func envelope(service, action string, args []arg) string {
	var b strings.Builder
	b.WriteString(`<?xml version="1.0" encoding="utf-8"?>` + "\r\n" +
		`<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/" s:encodingStyle="http://schemas.xmlsoap.org/soap/encoding/"><s:Body>`)
	fmt.Fprintf(&b, `<u:%s xmlns:u="%s">`, action, escape(service))
	for _, a := range args {
		fmt.Fprintf(&b, "<%s>%s</%s>", a.name, escape(a.value), a.name)
	}
	fmt.Fprintf(&b, "</u:%s></s:Body></s:Envelope>\r\n", action)
	return b.String()
}

func escape(s string) string {
	var b bytes.Buffer
	xml.EscapeText(&b, []byte(s)) // a buffer takes everything
	return b.String()
}

// answer is what came back: the arguments of the response, or a fault's number
// and words.
type answer struct {
	args  map[string]string
	fault bool
	code  int
	words string
}

// Limits of an XML document.
const (
	maxDepth    = 32
	maxElements = 5000
	maxText     = 4096
)

// newDecoder reads XML as routers write it: some say iso-8859-1 and mean it.
func newDecoder(b []byte) *xml.Decoder {
	d := xml.NewDecoder(bytes.NewReader(bytes.TrimSpace(b)))
	d.CharsetReader = func(label string, in io.Reader) (io.Reader, error) {
		switch strings.ToLower(label) {
		case "us-ascii", "ascii", "utf8":
			return in, nil
		case "iso-8859-1", "latin1", "windows-1252":
			raw, err := io.ReadAll(in)
			if err != nil {
				return nil, err
			}
			runes := make([]rune, len(raw))
			for i, c := range raw {
				runes[i] = rune(c)
			}
			return strings.NewReader(string(runes)), nil
		}
		return nil, fmt.Errorf("charset %q", oneLine(label, 20))
	}
	return d
}

// walk visits every element that has text, with the names of those round it. It
// refuses documents that are deeper or longer than any router's.
func walk(b []byte, visit func(path []string, text string)) error {
	d := newDecoder(b)
	var path []string
	var text [][]byte
	elements := 0
	for {
		t, err := d.Token()
		if errors.Is(err, io.EOF) {
			if elements == 0 {
				return errors.New("no XML")
			}
			return nil
		}
		if err != nil {
			return errors.New(oneLine(err.Error(), 120))
		}
		switch t := t.(type) {
		case xml.StartElement:
			if elements++; elements > maxElements || len(path) >= maxDepth {
				return errors.New("XML too large")
			}
			path, text = append(path, t.Name.Local), append(text, nil)
		case xml.CharData:
			if n := len(text); n > 0 {
				text[n-1] = append(text[n-1], t[:min(len(t), maxText-len(text[n-1]))]...)
			}
		case xml.EndElement:
			visit(path, strings.TrimSpace(string(text[len(text)-1])))
			path, text = path[:len(path)-1], text[:len(text)-1]
		}
	}
}

// parseAnswer reads the answer to an action.
func parseAnswer(action string, b []byte) (answer, error) {
	a := answer{args: map[string]string{}}
	seen := false
	err := walk(b, func(path []string, text string) {
		if len(path) < 3 || path[0] != "Envelope" || path[1] != "Body" {
			return
		}
		name := path[len(path)-1]
		switch {
		case path[2] == "Fault":
			a.fault = true
			switch name {
			case "errorCode":
				a.code, _ = strconv.Atoi(text)
			case "errorDescription":
				a.words = oneLine(text, 80)
			case "faultstring":
				if a.words == "" {
					a.words = oneLine(text, 80)
				}
			}
		case path[2] == action+"Response":
			seen = true
			if len(path) == 4 && len(a.args) < 64 {
				a.args[name] = text
			}
		}
	})
	if err == nil && !seen && !a.fault {
		err = errors.New("neither a response nor a fault")
	}
	if err != nil {
		return answer{}, &GarbledError{Reply: action, What: err.Error()}
	}
	return a, nil
}

// device is what a description says about a device, those inside it included.
type device struct {
	maker, model string
	services     []service
}

// service is one service of a description.
type service struct {
	kind    string // "urn:schemas-upnp-org:service:WANIPConnection:2"
	control place
}

// short is the service's name for people: "WANIPConnection:2".
func (s service) short() string {
	parts := strings.Split(s.kind, ":")
	if len(parts) < 2 {
		return s.kind
	}
	return strings.Join(parts[len(parts)-2:], ":")
}

// parseDevice reads a description that was fetched from p.
func parseDevice(b []byte, p place) (device, error) {
	var d device
	var kind, control string
	type raw struct{ kind, control string }
	var list []raw
	base := p
	var name string
	err := walk(b, func(path []string, text string) {
		at := path[len(path)-1]
		rootDevice := len(path) == 3 && path[1] == "device"
		switch {
		case at == "URLBase" && len(path) == 2 && text != "":
			if u, ok := parsePlace(text, p); ok {
				base = u
			}
		case at == "manufacturer" && rootDevice:
			d.maker = oneLine(text, 60)
		case at == "modelName" && rootDevice:
			d.model = oneLine(text, 60)
		case at == "friendlyName" && rootDevice:
			name = oneLine(text, 60)
		case at == "serviceType":
			kind = oneLine(text, 120)
		case at == "controlURL":
			control = text
		case at == "service":
			if kind != "" && len(list) < 100 {
				list = append(list, raw{kind, control})
			}
			kind, control = "", ""
		}
	})
	if err != nil {
		return device{}, &GarbledError{Reply: "description", What: err.Error()}
	}
	if d.model == "" {
		d.model = name
	}
	for _, r := range list {
		if c, ok := parsePlace(r.control, base); ok {
			d.services = append(d.services, service{r.kind, c})
		}
	}
	if len(list) == 0 {
		return device{}, &GarbledError{Reply: "description", What: "no services"}
	}
	return d, nil
}

// of finds the first service of the kinds, in their order.
func (d device) of(kinds ...string) (service, bool) {
	for _, k := range kinds {
		for _, s := range d.services {
			if s.kind == k {
				return s, true
			}
		}
	}
	return service{}, false
}
