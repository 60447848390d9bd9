package firmware

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/ProtonMail/go-crypto/openpgp"
)

// A Key is one public key that checksum lists are signed with.
type Key struct {
	// ID is a usign key's number (16 hex digits) or an OpenPGP key's fingerprint
	// (40 hex digits, upper case).
	ID   string `json:"id"`
	Name string `json:"name"` // "OpenWrt 24.10 release builds"
	// Shipped: it came with the program; otherwise a person named it.
	Shipped bool `json:"shipped"`

	usign ed25519.PublicKey
	pgp   *openpgp.Entity
}

// A Keyring is all keys that are trusted.
type Keyring []Key

// shipped are OpenWrt's usign keys, as its page of public keys lists them
// (openwrt.org/docs/guide-user/security/signatures, made from keyring.git; read
// in a stored copy on 2026-11-21). sha256 is that of the key's file in
// keyring.git as others pin it: the openwrt/docker repository (19.07, 21.02,
// unattended) and a feed builder's list of 2026-07-27 (21.02, 24.10, unattended;
// keyring.git fbae29d7). For 22.03 no such pin was found; a published backup of a
// router with 22.03 holds the same key.
//
// 23.05 has no key of its own: its routers trust the unattended builds' key. So
// has 25.12: two independent programs verify its sha256sums.sig with it.
var shipped = []struct{ lines, comment, data, sha256 string }{
	{"21.02", "Public usign key for 21.02 release builds", "RWQviwuY4IMGvwLfs6842A0m4EZU1IjczTxKMSk3BQP8DAQLHBwdQiaU", "d102bdd75421c62490b97f520f9db06aadb44ad408b244755d26e96ea5cd3b7f"},
	{"22.03", "Public usign key for 22.03 release builds", "RWRNAX5vHtXWFmt+n5di7XX8rTu0w+c8X7Ihv4oCyD6tzsUwmH0A6kO0", ""},
	{"24.10", "Public usign key for 24.10 release builds", "RWTTEMbygz6X95lKDAulctZy3aj15823THXfyrfXgwGbxZlXBd2brNcw", "e3624aa9be785362a172595b4919b233268871c4365a9b8da2b42ac41745ad95"},
	{"23.05, 25.12, snapshots", "Public usign key for unattended snapshot builds", "RWS1BD5w+adc3j2Hqg9+b66CvLR7NlHbsj7wjNVj0XGt/othDgIAOJS+", "d7ac10f9ed1b38033855f3d27c9327d558444fca804c685b17d9dcfb0648228f"},
}

// pinned are the fingerprints of OpenWrt's OpenPGP keys, from the same page. The
// keys themselves could not be had when this was written: a list that carries
// sha256sums.asc alone is refused until a person names the key's file, which must
// have one of these fingerprints to be called OpenWrt's.
var pinned = map[string]string{
	"8A8BC12F46B836C0F9CDB36F1D53D1877742E911": "OpenWrt Build System (Nitrokey3), releases since November 2024",
	"BF856781A01293C8409ABE72CD54E82DADB3684D": "OpenWrt 22.03 release builds",
	"667205E379BAF348863A5C6688CA59E88F681580": "OpenWrt 21.02 release builds",
	"54CC74307A2C6DC9CE618269CD84BCED626471F1": "OpenWrt unattended snapshot builds",
}

// signingSubkeys are the key numbers that stand in signatures made with pinned keys.
var signingSubkeys = map[string]string{
	"2B0151090606D1D9": "8A8BC12F46B836C0F9CDB36F1D53D1877742E911",
	"AB3F404913AA0D5A": "BF856781A01293C8409ABE72CD54E82DADB3684D",
	"D3867007F801C9B3": "667205E379BAF348863A5C6688CA59E88F681580",
	"F93525A88B699029": "54CC74307A2C6DC9CE618269CD84BCED626471F1",
}

// OpenWrt is the keyring that ships with the program.
func OpenWrt() Keyring {
	var out Keyring
	for _, s := range shipped {
		k, err := ParseKey([]byte("untrusted comment: " + s.comment + "\n" + s.data + "\n"))
		if err != nil {
			panic(err) // a test parses them
		}
		k.Name, k.Shipped = "OpenWrt "+strings.TrimPrefix(s.comment, "Public usign key for "), true
		out = append(out, k)
	}
	return out
}

// maxKey is the size of the largest file that is read as a key.
const maxKey = 256 << 10

// ParseKey reads a public key: a usign key file or an OpenPGP key, armored or not.
func ParseKey(text []byte) (Key, error) {
	if len(text) > maxKey {
		return Key{}, errors.New("too large for a key")
	}
	if bytes.HasPrefix(text, []byte("untrusted comment:")) {
		return parseUsignKey(text)
	}
	list, err := openpgp.ReadArmoredKeyRing(bytes.NewReader(text))
	if err != nil {
		list, err = openpgp.ReadKeyRing(bytes.NewReader(text))
	}
	switch {
	case err != nil:
		return Key{}, errors.New("neither a usign nor an OpenPGP public key")
	case len(list) != 1:
		return Key{}, fmt.Errorf("%d OpenPGP keys in one file", len(list))
	case list[0].PrivateKey != nil:
		return Key{}, errors.New("a private key; only the public one belongs here")
	}
	k := Key{ID: strings.ToUpper(hex.EncodeToString(list[0].PrimaryKey.Fingerprint)), pgp: list[0]}
	k.Name = pinned[k.ID]
	if k.Name == "" {
		k.Name = "a key that you named"
	}
	return k, nil
}

// usignKind is what all of usign's base64 lines begin with: Ed25519.
const usignKind = "Ed"

func parseUsignKey(text []byte) (Key, error) {
	raw, err := usignLine(text)
	if err != nil {
		return Key{}, err
	}
	if len(raw) != 2+8+ed25519.PublicKeySize {
		return Key{}, errors.New("not a usign public key")
	}
	return Key{ID: hex.EncodeToString(raw[2:10]), Name: "a key that you named", usign: ed25519.PublicKey(raw[10:])}, nil
}

// usignLine decodes the second line of usign's files, the first of which is a
// comment that nobody vouches for.
func usignLine(text []byte) ([]byte, error) {
	comment, rest, ok := bytes.Cut(text, []byte("\n"))
	if !ok || !bytes.HasPrefix(comment, []byte("untrusted comment:")) {
		return nil, errors.New("no usign file: its first line is no comment")
	}
	line, tail, _ := bytes.Cut(rest, []byte("\n"))
	if len(bytes.TrimSpace(tail)) > 0 {
		return nil, errors.New("no usign file: more than two lines")
	}
	raw, err := base64.StdEncoding.Strict().DecodeString(strings.TrimSuffix(string(line), "\r"))
	if err != nil || len(raw) < 10 || string(raw[:2]) != usignKind {
		return nil, errors.New("no usign file: its second line is no Ed25519 key or signature")
	}
	return raw, nil
}

// With adds keys; one that is there already stays as it is.
func (r Keyring) With(more ...Key) Keyring {
	out := slices.Clone(r)
	for _, k := range more {
		if !slices.ContainsFunc(out, func(x Key) bool { return x.ID == k.ID }) {
			out = append(out, k)
		}
	}
	return out
}
