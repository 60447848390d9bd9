package hostnet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/heimweg/heimweg/internal/store"
)

// A change is one thing that we change on this computer for a while.
type change struct {
	What what         `json:"what"`
	Net  netip.Prefix `json:"net,omitzero"` // of address and route
}

type what string

const (
	switchOn  what = "on"        // the card was switched off
	unmanaged what = "unmanaged" // NetworkManager leaves the card alone
	address   what = "address"   // an address on the card
	hostRoute what = "route"     // one host is behind the card
)

func (c change) String() string {
	switch c.What {
	case switchOn:
		return "the card switched on"
	case unmanaged:
		return "NetworkManager kept away"
	}
	return fmt.Sprintf("%s %s", c.What, c.Net)
}

// A system carries out changes. Undoing what is not there is no error.
type system interface {
	do(ctx context.Context, c Card, ch change) error
	undo(ctx context.Context, c Card, ch change) error
}

// A loan is what we have borrowed on a card. Its record is on the disk before
// the first change is made, so that whatever ends this process, the next one
// knows what to give back.
type loan struct {
	sys    system
	card   Card
	record string
	unlock func()
	have   []change
}

// A note is a loan's record.
type note struct {
	Version int       `json:"version"`
	Card    string    `json:"card"`
	MAC     string    `json:"mac"`
	PID     int       `json:"pid"`
	Since   time.Time `json:"since"`
	Changes []change  `json:"changes"`
}

// newLoan starts a loan after giving back what an earlier run left. Error:
// *LentError.
func newLoan(ctx context.Context, sys system, c Card, record string) (*loan, error) {
	l := &loan{sys: sys, card: c, record: record, unlock: func() {}}
	if record == "" {
		return l, nil
	}
	var err error
	if l.unlock, err = lockRecord(record); err != nil {
		return nil, err
	}
	if err := giveBackLocked(ctx, sys, record); err != nil {
		l.unlock()
		return nil, err
	}
	return l, nil
}

func lockRecord(record string) (unlock func(), err error) {
	unlock, err = store.Lock(record)
	var locked *store.LockedError
	if errors.As(err, &locked) {
		return nil, &LentError{Record: record, PID: locked.PID, Since: locked.Since}
	}
	return unlock, err
}

// borrow makes a change, unless we have it.
func (l *loan) borrow(ctx context.Context, ch change) error {
	if slices.Contains(l.have, ch) {
		return nil
	}
	if err := l.write(append(slices.Clone(l.have), ch)); err != nil {
		return err
	}
	if err := l.sys.do(ctx, l.card, ch); err != nil {
		return errors.Join(err, l.write(l.have))
	}
	l.have = append(l.have, ch)
	return nil
}

// back undoes changes, the last one first.
func (l *loan) back(ctx context.Context, which func(change) bool) error {
	var left []change
	var fail error
	for _, ch := range slices.Backward(l.have) {
		if which(ch) {
			if err := l.sys.undo(ctx, l.card, ch); err == nil {
				continue
			} else if fail == nil {
				fail = &LeftError{Card: l.card.Name, What: []string{ch.String()}, Cause: err}
			}
		}
		left = append(left, ch)
	}
	slices.Reverse(left)
	l.have = left
	return errors.Join(fail, l.write(left))
}

// end gives everything back.
func (l *loan) end(ctx context.Context) error {
	defer l.unlock()
	return l.back(ctx, func(change) bool { return true })
}

// write puts the loan on the disk, or takes its record away when it is empty.
func (l *loan) write(have []change) error {
	if l.record == "" {
		return nil
	}
	if len(have) == 0 {
		if err := os.Remove(l.record); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	b, err := json.MarshalIndent(note{1, l.card.Name, l.card.MAC.String(), os.Getpid(), time.Now().UTC().Truncate(time.Second), have}, "", "  ")
	if err != nil {
		return err
	}
	return store.WriteFile(l.record, append(b, '\n'), store.Private)
}

// GiveBack undoes what a killed run left behind, by its record. No record:
// nothing to do. Errors: *LentError while that run is still alive, *LeftError,
// *RecordError.
func GiveBack(ctx context.Context, record string) error {
	if _, err := os.Stat(record); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	unlock, err := lockRecord(record)
	if err != nil {
		return err
	}
	defer unlock()
	return giveBackLocked(ctx, thisSystem, record)
}

func giveBackLocked(ctx context.Context, sys system, record string) error {
	b, err := store.Read(record)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	n, err := parseNote(b)
	if err != nil {
		return &RecordError{Path: record, Cause: err}
	}
	list, err := Cards(ctx)
	if err != nil {
		return err
	}
	l := &loan{sys: sys, record: record, have: n.Changes}
	for _, c := range list {
		if c.Name == n.Card && c.MAC.String() == n.MAC {
			l.card = c
			return l.back(ctx, func(change) bool { return true })
		}
	}
	return l.write(nil) // the card is gone, and everything on it
}

// parseNote reads a record. It decides what is undone as root, so it says
// nothing that a loan would not.
func parseNote(b []byte) (note, error) {
	var n note
	if err := json.Unmarshal(b, &n); err != nil {
		return n, err
	}
	if n.Version != 1 {
		return n, fmt.Errorf("version %d is not known", n.Version)
	}
	for _, ch := range n.Changes {
		switch {
		case ch.What == switchOn || ch.What == unmanaged:
		case (ch.What == address || ch.What == hostRoute) && ch.Net.IsValid() && ch.Net.Addr().Is4():
		default:
			return n, fmt.Errorf("%q is nothing that is borrowed", ch.What)
		}
	}
	return n, nil
}
