package openway

import (
	"errors"
	"slices"

	"github.com/heimweg/heimweg/internal/uplink"
)

// nextAfter is what a person can do about a refusal whose words alone do not say it.
var nextAfter = map[uplink.Why]string{
	uplink.NeedsSecond:   "the FRITZ!Box wants that confirmed by a button or a telephone, which only its own pages can begin: open the port there by hand",
	uplink.WrongPassword: "the password is that of a FRITZ!Box user, as its page System › FRITZ!Box Users shows them; after some wrong ones it lets nobody in for a while",
	uplink.NotPermitted:  "this FRITZ!Box user needs the right \"FRITZ!Box Settings\": System › FRITZ!Box Users",
	uplink.NotForOthers:  "only the home router may ask for its own port: let heimweg reach that by SSH without another computer between, or sit in its home LAN",
	uplink.Busy:          "the FRITZ!Box is waiting for a confirmation of something else; run heimweg up again in a minute",
}

// hints are the next steps after what was tried, each once.
func hints(tried []uplink.Attempt) []string {
	var out []string
	for _, a := range tried {
		var no *uplink.RefusedError
		if !errors.As(a.Err, &no) {
			continue
		}
		if next := nextAfter[no.Why]; next != "" && !slices.Contains(out, next) {
			out = append(out, next)
		}
	}
	return out
}
