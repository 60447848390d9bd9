package firewall

import (
	"math"
	"time"

	"github.com/heimweg/heimweg/internal/uci"
)

// rate is how often a section counts: `limit` and `limit_burst`.
type rate struct {
	count uint64
	unit  string
	burst int // 0: nft's own, which is 5
}

var unitLasts = map[string]time.Duration{"second": time.Second, "minute": time.Minute, "hour": time.Hour, "day": 24 * time.Hour}

// limit is the condition of one rule. Every rule has a bucket of its own, also
// when one section makes several rules.
//
// Known difference: the kernel asks the rules that rewrite sources or set marks
// for the router's own answers, too (a reset counts as related), so that a limit
// there empties faster than here. Seen in lab/kernel on Linux 6.18.
type limit struct {
	rate
	over bool // true for the packets above the rate, not those below
}

// defaultBurst is nft's (kernel: NFT_LIMIT_PKT_BURST_DEFAULT).
const defaultBurst = 5

// cost is what one packet takes out of the bucket; the kernel reckons in
// nanoseconds of waiting (nft_limit.c).
func (l *limit) cost() time.Duration { return unitLasts[l.unit] / time.Duration(l.count) }

func (l *limit) full() time.Duration {
	n := l.burst
	if n == 0 {
		n = defaultBurst
	}
	return l.cost() * time.Duration(n)
}

// newLimit makes the condition of one rule; nil for none.
func (c *compiler) newLimit(s uci.Section, r *rate) *limit {
	if r == nil {
		return nil
	}
	const most = 1 << 32 // nft's numbers end there
	if r.count == 0 || r.count >= most || r.burst < 0 || r.burst >= most {
		c.refuse(s, "has a limit that nft does not take, the ruleset cannot be loaded")
		return nil
	}
	l := &limit{rate: *r}
	if cost := l.cost(); cost > 0 && time.Duration(l.burst) > math.MaxInt64/cost {
		c.refuse(s, "has a limit that nft does not take, the ruleset cannot be loaded")
		return nil
	}
	return l
}

// over turns the condition round.
func (c *compiler) over(l *limit) *limit {
	if l != nil {
		l.over = true
	}
	return l
}

// bucket is how much waiting a rule has saved up.
type bucket struct {
	saved time.Duration
	at    time.Time
}

// obey begins with full buckets when another ruleset is loaded, as nft does.
func (t *Tracker) obey(r *Ruleset) {
	if t.of != r {
		t.of, t.buckets = r, nil
	}
}

// under takes a turn and reports whether the condition holds.
func (t *Tracker) under(l *limit, now time.Time) bool {
	b, ok := t.buckets[l]
	if !ok {
		b = bucket{saved: l.full(), at: now}
	}
	b.saved = min(b.saved+max(now.Sub(b.at), 0), l.full())
	b.at = now
	took := b.saved >= l.cost()
	if took {
		b.saved -= l.cost()
	}
	if t.buckets == nil {
		t.buckets = map[*limit]bucket{}
	}
	t.buckets[l] = b
	return took != l.over
}
