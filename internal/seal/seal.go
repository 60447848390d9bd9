// Package seal encrypts and opens backup files with age (https://age-encryption.org),
// so that the age program opens them, too.
//
// It is an edge because age takes its randomness from the computer itself; it
// touches no file and knows nothing of what it seals. It never puts a passphrase or
// a key into an error.
//
// Background. age encrypts a file to recipients. A passphrase is one: scrypt makes
// it slow to guess, by a work factor of 2^n. The library's usual 2^18 takes 532 MB
// of memory, which kills the process on a small computer; 2^16 takes 139 MB and
// 0.25 s (facts deps.md 11). What is read may ask for no more than that either.
package seal

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"filippo.io/age"
	"filippo.io/age/agessh"
	"filippo.io/age/armor"
)

// Work is the work factor of new files, and the largest that is accepted.
const (
	Work    = 16
	maxWork = 18
)

// Largest is how much a sealed file may hold.
const Largest = 40 << 20

// A Lock is what a file is sealed with.
type Lock struct{ to []age.Recipient }

// Passphrase locks with a passphrase.
func Passphrase(p string) (Lock, error) { return passphrase(p, Work) }

func passphrase(p string, work int) (Lock, error) {
	r, err := age.NewScryptRecipient(p)
	if err != nil {
		return Lock{}, &KeyError{What: "passphrase", Why: "it may not be empty"}
	}
	r.SetWorkFactor(work)
	return Lock{[]age.Recipient{r}}, nil
}

// Recipients locks to public keys: "age1…", or an SSH key ("ssh-ed25519 …",
// "ssh-rsa …"). Each can open it alone.
func Recipients(keys ...string) (Lock, error) {
	var l Lock
	for _, k := range keys {
		k = strings.TrimSpace(k)
		var r age.Recipient
		var err error
		switch {
		case strings.HasPrefix(k, "ssh-"):
			r, err = agessh.ParseRecipient(k)
		case strings.HasPrefix(k, "AGE-SECRET-KEY-"):
			return Lock{}, &KeyError{What: "recipient", Why: "this is the secret key; the recipient is the public one that begins with age1"}
		default:
			r, err = parseRecipient(k)
		}
		if err != nil {
			return Lock{}, &KeyError{What: "recipient", Why: fmt.Sprintf("%.20q… is neither age1… nor an SSH key of type ed25519 or RSA", k)}
		}
		l.to = append(l.to, r)
	}
	if len(l.to) == 0 {
		return Lock{}, &KeyError{What: "recipient", Why: "none is named"}
	}
	return l, nil
}

func parseRecipient(k string) (age.Recipient, error) {
	list, err := age.ParseRecipients(strings.NewReader(k))
	if err != nil || len(list) != 1 {
		return nil, errors.New("no recipient")
	}
	return list[0], nil
}

// A KeyError says what is wrong with a passphrase, a recipient or an identity.
type KeyError struct{ What, Why string }

func (e *KeyError) Error() string { return e.What + ": " + e.Why }

// Seal encrypts.
func (l Lock) Seal(plain []byte) ([]byte, error) {
	var out bytes.Buffer
	w, err := age.Encrypt(&out, l.to...)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(plain); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// Kind is how a file is sealed.
type Kind int

const (
	Open         Kind = iota // not sealed
	ByPassphrase             // a passphrase opens it
	ByKey                    // an identity opens it
)

// KindOf looks at the head of a file.
func KindOf(data []byte) Kind {
	if !bytes.HasPrefix(data, []byte("age-encryption.org/")) && !bytes.HasPrefix(data, []byte(armor.Header)) {
		return Open
	}
	_, err := open(data, probe{})
	var p *probed
	if errors.As(err, &p) && p.scrypt {
		return ByPassphrase
	}
	return ByKey
}

// probe is an identity that only looks who the recipients are.
type probe struct{}
type probed struct{ scrypt bool }

func (*probed) Error() string { return "looked at" }

func (probe) Unwrap(stanzas []*age.Stanza) ([]byte, error) {
	p := &probed{}
	for _, s := range stanzas {
		p.scrypt = p.scrypt || s.Type == "scrypt"
	}
	return nil, p
}

// An Opener opens sealed files.
type Opener struct{ with []age.Identity }

// WithPassphrase opens with a passphrase.
func WithPassphrase(p string) (Opener, error) {
	i, err := age.NewScryptIdentity(p)
	if err != nil {
		return Opener{}, &KeyError{What: "passphrase", Why: "it may not be empty"}
	}
	i.SetMaxWorkFactor(maxWork)
	return Opener{[]age.Identity{i}}, nil
}

// WithIdentity opens with what an identity file holds: AGE-SECRET-KEY lines, or
// an SSH private key without passphrase.
func WithIdentity(text []byte) (Opener, error) {
	if bytes.Contains(text, []byte("PRIVATE KEY-----")) {
		i, err := agessh.ParseIdentity(text)
		if err != nil {
			return Opener{}, &KeyError{What: "identity", Why: "this SSH key cannot be used: it has a passphrase, or is neither ed25519 nor RSA"}
		}
		return Opener{[]age.Identity{i}}, nil
	}
	list, err := age.ParseIdentities(bytes.NewReader(text))
	if err != nil {
		return Opener{}, &KeyError{What: "identity", Why: "it is neither an AGE-SECRET-KEY nor an SSH private key"}
	}
	return Opener{list}, nil
}

// Or opens with whatever fits.
func (o Opener) Or(p Opener) Opener {
	return Opener{append(append([]age.Identity{}, o.with...), p.with...)}
}

// Errors of Open.
var (
	// ErrNoMatch: none of the keys, or another passphrase.
	ErrNoMatch = errors.New("no key fits")
	// ErrDamaged: not a sealed file, or not whole, or changed by somebody.
	ErrDamaged = errors.New("the sealed file is damaged")
)

// Open decrypts. The error is ErrNoMatch, or ErrDamaged for everything else.
func (o Opener) Open(data []byte) ([]byte, error) {
	plain, err := open(data, o.with...)
	var no *age.NoIdentityMatchError
	switch {
	case err == nil:
		return plain, nil
	case errors.As(err, &no):
		return nil, ErrNoMatch
	}
	return nil, ErrDamaged
}

func open(data []byte, with ...age.Identity) ([]byte, error) {
	var r io.Reader = bytes.NewReader(data)
	if bytes.HasPrefix(data, []byte(armor.Header)) {
		r = armor.NewReader(r)
	}
	p, err := age.Decrypt(r, with...)
	if err != nil {
		return nil, err
	}
	plain, err := io.ReadAll(io.LimitReader(p, Largest+1))
	if err == nil && len(plain) > Largest {
		err = ErrDamaged
	}
	return plain, err
}
