package view_test

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/heimweg/heimweg/internal/adopt"
	"github.com/heimweg/heimweg/internal/fault"
	"github.com/heimweg/heimweg/internal/view"
)

func TestShowAdopted(t *testing.T) {
	v := view.Adopted{
		Tunnel: "WG0", Devices: []string{"phone"}, Home: "home.toml", Written: true,
		Parts: []adopt.Part{
			{Code: "wg-installer", Verdict: adopt.Harmful, What: "package wg-installer-server", Why: "it deletes tunnels", Then: "remove it: opkg remove wg-installer-server"},
			{Code: "key-file", Verdict: adopt.Unsafe, What: "a key\x1b[2J of unknown use", Place: &fault.Place{File: "/root/x\x1b"}, Why: "it lies about"},
			{Code: "rule", Verdict: adopt.Needed, What: "rule open", Place: &fault.Place{File: "/etc/config/firewall", Line: 12}, Why: "only through it: calls come in", Then: "goes"},
		},
		Notes: []string{"your devices do not reach each other any more"},
		Stays: []*fault.Fault{fault.New("adopt-option", "home.toml has no word for the option fwmark").Do("take it out")},
	}
	var b bytes.Buffer
	view.ShowAdopted(&b, view.Style{}, v)
	const want = `harmful    package wg-installer-server
           it deletes tunnels
           → remove it: opkg remove wg-installer-server
unsafe     a key?[2J of unknown use   (/root/x?)
           it lies about
needed     rule open   (/etc/config/firewall:12)
           only through it: calls come in
           → goes

i your devices do not reach each other any more
heimweg: home.toml has no word for the option fwmark
  next  take it out
`
	if got := b.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	text, err := json.Marshal(v)
	var keys map[string]any
	if err != nil || json.Unmarshal(text, &keys) != nil {
		t.Fatal(err)
	}
	for _, k := range []string{"tunnel", "devices", "parts", "notes", "cannot_move", "home", "written"} {
		if _, ok := keys[k]; !ok {
			t.Errorf("the JSON has lost %q", k)
		}
	}
	for _, k := range []string{"what", "verdict", "why", "code"} {
		if _, ok := keys["parts"].([]any)[0].(map[string]any)[k]; !ok {
			t.Errorf("the JSON of a part has lost %q", k)
		}
	}
}
