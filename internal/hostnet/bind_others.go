//go:build !linux && !darwin && !windows

package hostnet

import "errors"

const bindsToCard = false

func bindToCard(uintptr, Card) error { return errors.ErrUnsupported }
