//go:build !linux

package hostnet

import (
	"context"
	"time"
)

// linkEvery is how often the cable's state is asked for where the system does not
// tell by itself.
const linkEvery = 50 * time.Millisecond

func waitLink(ctx context.Context, c Card, up bool) error {
	tick := time.NewTicker(linkEvery)
	defer tick.Stop()
	for {
		list, err := Cards(ctx)
		if err != nil {
			return err
		}
		now, err := Choose(list, c.Name)
		if err != nil {
			return err
		}
		switch {
		case now.Link == LinkUnknown:
			return &NotPossibleError{What: "the state of the cable"}
		case up == (now.Link == LinkUp):
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
