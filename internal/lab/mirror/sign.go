package mirror

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"fmt"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// Keys are the mirror's public keys in the forms of OpenWrt's keyring.
type Keys struct {
	Usign   []byte // "untrusted comment: …", base64
	ID      string // the usign key's number: 16 hex digits
	OpenPGP []byte // armored
}

type keys struct {
	secret ed25519.PrivateKey
	number [8]byte
	entity *openpgp.Entity
	public Keys
}

// makeKeys makes both; a machine without randomness cannot run the lab.
func makeKeys() keys {
	var k keys
	public, secret, err := ed25519.GenerateKey(rand.Reader)
	must(err)
	k.secret = secret
	rand.Read(k.number[:])
	k.public.ID = fmt.Sprintf("%x", k.number)
	k.public.Usign = fmt.Appendf(nil, "untrusted comment: the lab's own key\n%s\n",
		base64.StdEncoding.EncodeToString(append(append([]byte("Ed"), k.number[:]...), public...)))
	k.entity, err = openpgp.NewEntity("The lab", "", "lab@example.net", &packet.Config{Algorithm: packet.PubKeyAlgoEdDSA})
	must(err)
	var b bytes.Buffer
	w, err := armor.Encode(&b, openpgp.PublicKeyType, nil)
	must(err)
	must(k.entity.Serialize(w))
	must(w.Close())
	k.public.OpenPGP = append(b.Bytes(), '\n')
	return k
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

// Keys are what a program must trust to take this mirror's files.
func (m *Mirror) Keys() Keys { return m.keys.public }

// usign signs in the manner of usign -S: "Ed", key number, Ed25519 signature.
func (k keys) usign(b []byte) []byte {
	return fmt.Appendf(nil, "untrusted comment: signed by key %x\n%s\n", k.number,
		base64.StdEncoding.EncodeToString(append(append([]byte("Ed"), k.number[:]...), ed25519.Sign(k.secret, b)...)))
}

func (k keys) openPGP(b []byte) []byte {
	var out bytes.Buffer
	must(openpgp.ArmoredDetachSign(&out, k.entity, bytes.NewReader(b), nil))
	return append(out.Bytes(), '\n')
}
