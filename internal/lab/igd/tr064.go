package igd

import (
	"crypto/md5"
	"encoding/hex"
	"fmt"
	"net/http"
	"regexp"
)

// realm is what FRITZ!OS shows (public traces, such as fritzboxtr064 19).
const realm = "HTTPS Access"

var field = regexp.MustCompile(`(\w+)=(?:"([^"]*)"|([^\s,]+))`)

// loggedIn demands and checks the digest login (RFC 2617 with MD5 and qop=auth).
func (s *Server) loggedIn(w http.ResponseWriter, r *http.Request) bool {
	said := map[string]string{}
	for _, m := range field.FindAllStringSubmatch(r.Header.Get("Authorization"), -1) {
		said[m[1]] = m[2] + m[3]
	}
	if len(said) > 0 && s.rightLogin(r, said) {
		return true
	}
	s.mu.Lock()
	if len(said) > 0 {
		s.counts["login refused"]++
	}
	nonce := fmt.Sprintf("%016X", md5.Sum(fmt.Appendf(nil, "%s %d", s.started, len(s.nonces))))[:16]
	s.nonces[nonce] = true
	s.mu.Unlock()
	w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Digest realm="%s", nonce="%s", algorithm=MD5, qop="auth"`, realm, nonce))
	http.Error(w, "Unauthorized", http.StatusUnauthorized)
	return false
}

func (s *Server) rightLogin(r *http.Request, said map[string]string) bool {
	hash := func(text string) string { h := md5.Sum([]byte(text)); return hex.EncodeToString(h[:]) }
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.nonces[said["nonce"]] || said["uri"] != r.URL.RequestURI() || said["realm"] != realm || said["qop"] != "auth" {
		return false
	}
	a := s.opt.TR064
	want := hash(hash(a.User+":"+realm+":"+a.Password) + ":" + said["nonce"] + ":" + said["nc"] + ":" + said["cnonce"] + ":auth:" + hash(r.Method+":"+said["uri"]))
	return said["username"] == a.User && said["response"] == want
}
