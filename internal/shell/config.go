package shell

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strings"

	"github.com/kevinburke/ssh_config"
)

// A ConfigError says what is wrong with an ssh_config file.
type ConfigError struct {
	Path  string
	Cause error
}

func (e *ConfigError) Error() string { return fmt.Sprintf("%s: %v", e.Path, e.Cause) }
func (e *ConfigError) Unwrap() error { return e.Cause }

// where is a Target with everything looked up.
type where struct {
	addr, user, name string
	jump             string
	keyFiles         []string
	named            bool // the key files were asked for by name: a missing one is worth a word
	identitiesOnly   bool
	agentAt          string
	known            []string
	config           string
}

// resolve fills a Target from ~/.ssh/config. What the Target says wins.
// Respected: HostName, User, Port, HostKeyAlias, IdentityFile, IdentityAgent,
// IdentitiesOnly, ProxyJump. Not respected: Match blocks with conditions other than host,
// ProxyCommand, and /etc/ssh/ssh_config.
func resolve(t Target, o Options) (where, error) {
	host, port, err := split(t.Addr)
	if err != nil {
		return where{}, err
	}
	var w where
	home := ""
	if o.Config != "none" {
		home, _ = os.UserHomeDir()
	}
	cfg, err := o.readConfig(home)
	if err != nil {
		return where{}, err
	}
	w.config = cfg.path
	alias := host
	w.user = first(t.User, cfg.get(alias, "User"), "root")
	if h := cfg.get(alias, "HostName"); h != "" {
		host = strings.ReplaceAll(h, "%h", alias)
	}
	w.addr = net.JoinHostPort(host, first(port, cfg.get(alias, "Port"), "22"))
	w.name = first(t.ID, cfg.get(alias, "HostKeyAlias"), w.addr)
	w.jump = first(t.Jump, cfg.get(alias, "ProxyJump"))
	if w.jump == "none" {
		w.jump = ""
	}
	expand := tokens(home, alias, host, w.user)

	w.keyFiles, w.named = o.Auth.KeyFiles, true
	if w.keyFiles == nil {
		for _, f := range cfg.all(alias, "IdentityFile") {
			w.keyFiles = append(w.keyFiles, expand(f))
		}
	}
	if w.keyFiles == nil && home != "" {
		w.keyFiles, w.named = []string{filepath.Join(home, ".ssh", "id_ed25519"), filepath.Join(home, ".ssh", "id_rsa")}, false
	}
	w.identitiesOnly = strings.EqualFold(cfg.get(alias, "IdentitiesOnly"), "yes")
	if o.Auth.Agent {
		w.agentAt = first(o.Auth.AgentAt, expand(cfg.get(alias, "IdentityAgent")), os.Getenv("SSH_AUTH_SOCK"), defaultAgent)
		switch {
		case w.agentAt == "none":
			w.agentAt = ""
		case w.agentAt == "SSH_AUTH_SOCK":
			w.agentAt = os.Getenv("SSH_AUTH_SOCK")
		case strings.HasPrefix(w.agentAt, "$"):
			w.agentAt = os.Getenv(strings.Trim(w.agentAt, "${}"))
		}
	}
	w.known = o.UserKnown
	if w.known == nil && home != "" {
		w.known = []string{filepath.Join(home, ".ssh", "known_hosts")}
	}
	return w, nil
}

// tokens expands what ssh_config allows in file names.
func tokens(home, alias, host, remote string) func(string) string {
	local := ""
	if u, err := user.Current(); err == nil {
		local = u.Username
	}
	r := strings.NewReplacer("%%", "%", "%d", home, "%h", host, "%n", alias, "%r", remote, "%u", local)
	return func(s string) string {
		s = strings.Trim(s, `"`)
		if rest, ok := strings.CutPrefix(s, "~/"); ok {
			s = filepath.Join(home, rest)
		}
		return r.Replace(s)
	}
}

func first(s ...string) string {
	for _, v := range s {
		if v != "" {
			return v
		}
	}
	return ""
}

// split cuts host and port; "" for no port. A bare IPv6 address has none.
func split(addr string) (host, port string, err error) {
	if h, ok := strings.CutPrefix(addr, "["); ok && strings.HasSuffix(h, "]") {
		return strings.TrimSuffix(h, "]"), "", nil
	}
	if strings.Count(addr, ":") == 1 || strings.HasPrefix(addr, "[") {
		if host, port, err = net.SplitHostPort(addr); err != nil {
			return "", "", &UnreachableError{Addr: addr, Stage: StageConnect, Cause: err}
		}
		return host, port, nil
	}
	if addr == "" {
		return "", "", &UnreachableError{Addr: addr, Stage: StageConnect, Cause: errors.New("no address was given")}
	}
	return addr, "", nil
}

// config is an ssh_config file, or none.
type config struct {
	path string
	c    *ssh_config.Config
}

func (o Options) readConfig(home string) (config, error) {
	path := o.Config
	switch {
	case path == "none" || path == "" && home == "":
		return config{}, nil
	case path == "":
		path = filepath.Join(home, ".ssh", "config")
	}
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) && o.Config == "" {
		return config{}, nil
	}
	if err != nil {
		return config{}, &ConfigError{path, err}
	}
	c, err := ssh_config.DecodeBytes(withoutConditions(b))
	if err != nil {
		return config{}, &ConfigError{path, err}
	}
	return config{path, c}, nil
}

// withoutConditions leaves out the Match blocks whose conditions this program
// does not judge (exec, user, final, …): the library refuses the whole file for
// one of them, or takes the conditions for names of hosts. Match all and Match
// host are plain Host blocks. Lines keep their numbers.
func withoutConditions(text []byte) []byte {
	lines := strings.Split(string(text), "\n")
	skip := false
	for i, l := range lines {
		f := strings.FieldsFunc(l, func(r rune) bool { return r == ' ' || r == '\t' || r == '\r' || r == '=' })
		if len(f) == 0 {
			continue
		}
		switch strings.ToLower(f[0]) {
		case "host":
			skip = false
		case "match":
			skip = false
			switch {
			case len(f) == 2 && strings.EqualFold(f[1], "all"):
				lines[i] = "Host *"
			case len(f) == 3 && (strings.EqualFold(f[1], "host") || strings.EqualFold(f[1], "originalhost")):
				lines[i] = "Host " + strings.ReplaceAll(f[2], ",", " ")
			default:
				skip = true
			}
		}
		if skip {
			lines[i] = ""
		}
	}
	return []byte(strings.Join(lines, "\n"))
}

func (c config) get(alias, key string) string {
	if c.c == nil {
		return ""
	}
	v, _ := c.c.Get(alias, key) // only an Include that cannot be read fails here; DecodeBytes has read it
	return v
}

func (c config) all(alias, key string) []string {
	if c.c == nil {
		return nil
	}
	v, _ := c.c.GetAll(alias, key)
	return v
}
