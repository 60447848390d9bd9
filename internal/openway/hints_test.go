package openway

import (
	"slices"
	"testing"
	"testing/synctest"

	"github.com/heimweg/heimweg/internal/lab/igd"
	"github.com/heimweg/heimweg/internal/uplink"
)

// What a FRITZ!Box refuses comes with what a person can do about it.
func TestHints(t *testing.T) {
	for _, c := range []struct {
		password string
		faults   igd.Faults
		why      uplink.Why
	}{
		{"swordfish", igd.Faults{SecondFactor: true}, uplink.NeedsSecond},
		{"swordfish", igd.Faults{Refuse: 606}, uplink.NotPermitted},
		{"swordfish", igd.Faults{Refuse: 868}, uplink.Busy},
		{"wrong", igd.Faults{}, uplink.WrongPassword},
	} {
		synctest.Test(t, func(t *testing.T) {
			h := newHall(t, &igd.Options{TR064: &igd.Account{User: "heimweg", Password: "swordfish"}, Faults: c.faults})
			h.req.Login = uplink.NewLogin("heimweg", c.password)
			w := h.look()
			h.open(w)
			if w.State != ByHand || !slices.Contains(w.Why, nextAfter[c.why]) {
				t.Errorf("%s: %s %q", c.why, w.State, w.Why)
			}
		})
	}
	if got := hints([]uplink.Attempt{{}, {Err: &uplink.NoAnswerError{}}, {Err: &uplink.RefusedError{Why: uplink.NotForOthers}}, {Err: &uplink.RefusedError{Why: uplink.NotForOthers}}}); len(got) != 1 {
		t.Errorf("%q", got)
	}
}
