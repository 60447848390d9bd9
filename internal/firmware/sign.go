package firmware

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// A Signature says who vouches for a file, as data.
type Signature struct {
	// Method is "usign" or "openpgp" for a signed list; "tls" for what only the
	// connection vouches for, "http" where not even that does; "none" when a person
	// accepted that nobody does.
	Method string `json:"method"`
	Key    string `json:"key,omitempty"` // the key's ID
	By     string `json:"by,omitempty"`  // "OpenWrt 24.10 release builds", or the server's name for "tls" and "http"
}

// The methods.
const (
	ByUsign   = "usign"
	ByOpenPGP = "openpgp"
	ByTLS     = "tls"
	ByHTTP    = "http"
	ByNobody  = "none"
)

// Signed reports whether a trusted key vouches for the file.
func (s Signature) Signed() bool { return s.Method == ByUsign || s.Method == ByOpenPGP }

func (s Signature) String() string {
	switch s.Method {
	case ByUsign, ByOpenPGP:
		return fmt.Sprintf("signed by %s (%s key %s)", s.By, s.Method, s.Key)
	case ByTLS:
		return "not signed; it came over TLS from " + s.By
	case ByHTTP:
		return "not signed, and nothing protected it on its way from " + s.By
	}
	return "not signed"
}

// maxSignature is the size of the largest signature file, in bytes.
const maxSignature = 16 << 10

// verify checks a list's detached signatures: one that fits is enough, and one
// that is by a key we know and does not fit is the end, whatever the other says.
// nil stands for a signature that is not there. The error is a *TrustError.
func (r Keyring) verify(name string, list, sig, asc []byte) (Signature, error) {
	unknown := []string{}
	var malformed error
	for _, way := range []struct {
		text  []byte
		check func(list, sig []byte) (Signature, error)
	}{{sig, r.verifyUsign}, {asc, r.verifyOpenPGP}} {
		if way.text == nil {
			continue
		}
		s, err := way.check(list, way.text)
		var who *unknownKey
		switch {
		case err == nil:
			return s, nil
		case errors.As(err, &who):
			unknown = append(unknown, who.id)
		case errors.Is(err, errNoFit):
			return Signature{}, &TrustError{Name: name, Doubt: Forged, Detail: err.Error()}
		default:
			malformed = err
		}
	}
	switch {
	case len(unknown) > 0:
		return Signature{}, &TrustError{Name: name, Doubt: KeyUnknown, Keys: unknown}
	case malformed != nil:
		return Signature{}, &TrustError{Name: name, Doubt: Forged, Detail: malformed.Error()}
	}
	return Signature{}, &TrustError{Name: name, Doubt: Unsigned}
}

type unknownKey struct{ id string }

func (e *unknownKey) Error() string { return "a key that is not known: " + e.id }

var errNoFit = errors.New("the signature does not fit")

// verifyUsign checks a .sig: "Ed", key number, Ed25519 signature of the file.
func (r Keyring) verifyUsign(list, sig []byte) (Signature, error) {
	raw, err := usignLine(sig)
	if err != nil {
		return Signature{}, err
	}
	if len(raw) != 2+8+ed25519.SignatureSize {
		return Signature{}, errors.New("not a usign signature")
	}
	id := hex.EncodeToString(raw[2:10])
	for _, k := range r {
		if k.usign == nil || k.ID != id {
			continue
		}
		if !ed25519.Verify(k.usign, list, raw[10:]) {
			return Signature{}, fmt.Errorf("%w: usign key %s", errNoFit, id)
		}
		return Signature{Method: ByUsign, Key: k.ID, By: k.Name}, nil
	}
	return Signature{}, &unknownKey{id}
}

// verifyOpenPGP checks a .asc. Keys are taken as they were when the signature was
// made: OpenWrt's key of 22.03 expired in 2025 and its releases are still there.
func (r Keyring) verifyOpenPGP(list, asc []byte) (Signature, error) {
	made, number, err := openPGPSignature(asc)
	if err != nil {
		return Signature{}, err
	}
	var ring openpgp.EntityList
	for _, k := range r {
		if k.pgp != nil {
			ring = append(ring, k.pgp)
		}
	}
	id := fmt.Sprintf("%016X", number)
	if len(ring.KeysById(number)) == 0 {
		if primary := signingSubkeys[id]; primary != "" {
			return Signature{}, &unknownKey{primary}
		}
		return Signature{}, &unknownKey{id}
	}
	block, err := armor.Decode(bytes.NewReader(asc))
	if err != nil {
		return Signature{}, err
	}
	config := &packet.Config{Time: func() time.Time { return made.Add(time.Second) }}
	who, err := openpgp.CheckDetachedSignature(ring, bytes.NewReader(list), block.Body, config)
	if err != nil || who == nil {
		return Signature{}, fmt.Errorf("%w: OpenPGP key %s", errNoFit, id)
	}
	fingerprint := strings.ToUpper(hex.EncodeToString(who.PrimaryKey.Fingerprint))
	for _, k := range r {
		if k.ID == fingerprint {
			return Signature{Method: ByOpenPGP, Key: k.ID, By: k.Name}, nil
		}
	}
	return Signature{}, &unknownKey{fingerprint}
}

// openPGPSignature reads when and with which key a signature says it was made. A
// file of several signatures is not OpenWrt's manner and is refused.
func openPGPSignature(asc []byte) (made time.Time, number uint64, err error) {
	block, err := armor.Decode(bytes.NewReader(asc))
	if err != nil || block.Type != openpgp.SignatureType {
		return made, 0, errors.New("not an OpenPGP signature")
	}
	packets := packet.NewReader(io.LimitReader(block.Body, maxSignature))
	p, err := packets.Next()
	if err != nil {
		return made, 0, errors.New("not an OpenPGP signature")
	}
	s, ok := p.(*packet.Signature)
	if !ok || s.IssuerKeyId == nil {
		return made, 0, errors.New("not an OpenPGP signature that names its key")
	}
	if _, err := packets.Next(); err != io.EOF {
		return made, 0, errors.New("more than one OpenPGP signature")
	}
	return s.CreationTime, *s.IssuerKeyId, nil
}
