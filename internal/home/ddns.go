package home

import (
	"net/url"
	"regexp"
	"strings"

	"github.com/heimweg/heimweg/internal/fault"
)

var (
	// ddns-scripts' services are files of that name (facts: OpenWrt section 6.7).
	ddnsService = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,63}$`)
	// What the updater refuses in a user name, and what UCI cannot hold.
	ddnsUser = regexp.MustCompile(`^[!-~]{1,128}$`)
	// A word of a query that holds a secret, followed by something else than a place
	// to fill in.
	secretQuery = regexp.MustCompile(`(?i)(pass|passwd|password|pwd|token|key|secret|auth|hash|api-?key)=[^\[&]`)
	placeholder = regexp.MustCompile(`\[[A-Z]*\]?`)
)

func wrongDDNSService(v string) *fault.Fault {
	if ddnsService.MatchString(v) {
		return nil
	}
	f := usage("bad-service", "%s is not the name of a service", show(v))
	if strings.Contains(v, "://") {
		return f.Do("write the service's name, such as service = \"desec.io\", or the address under update-url")
	}
	return f.Do("write it as OpenWrt's ddns-scripts do, such as \"desec.io\", \"dynv6.com\", \"duckdns.org\" or \"selfhost.de\"")
}

// wrongDDNSName judges the name that follows; an address follows nothing.
func wrongDDNSName(v string) *fault.Fault {
	if isAddr(v) {
		return usage("bad-name", "%s is an address, and a name shall follow it", show(v)).Do("write the name, such as name = \"home.example.net\"")
	}
	f := wrongEndpoint(v)
	if f == nil {
		return nil
	}
	// The sentences are those of the endpoint; what to write is not.
	return usage("bad-name", "%s", strings.ReplaceAll(f.What, "the endpoint", "the name")).Because("%s", strings.Join(f.Why, "; ")).
		Do("write the name that the service keeps for you, such as name = \"home.example.net\"")
}

func wrongDDNSUser(v string) *fault.Fault {
	if ddnsUser.MatchString(v) && !strings.ContainsAny(v, "'\"`$\\") {
		return nil
	}
	return usage("bad-user", "this cannot be the user name at the service").
		Because("the router's updater takes letters, digits and signs, without blanks and quotes").
		Do("copy it from the service's page; for some it is the host name, or \"none\"")
}

// wrongUpdateURL refuses what would tell a secret: in the file, or on the way.
func wrongUpdateURL(v string) *fault.Fault {
	const example = "write it like update-url = \"https://dyn.example.net/update?host=[DOMAIN]&password=[PASSWORD]&ip=[IP]\""
	u, err := url.Parse(placeholder.ReplaceAllString(v, "x"))
	switch {
	case err != nil || u.Host == "" || strings.ContainsAny(v, " '\"`$\\<>"):
		return usage("bad-url", "this is not a web address").Do(example)
	case secretQuery.MatchString(v), u.User != nil && !strings.Contains(v, "[PASSWORD]@"), keyLike.MatchString(placeholder.ReplaceAllString(v, "")):
		return usage("secret", "this address has a password or token in it").
			Because("home.toml holds no secrets; the service's password is kept on the router only").
			Do("put [PASSWORD] in its place; heimweg apply asks for it once")
	case u.Scheme != "https":
		return usage("bad-url", "the address begins with %s", show(u.Scheme+"://")).
			Because("on the way everybody could read the password").Do("write the https one")
	}
	return nil
}

func wrongAddressURL(v string) *fault.Fault {
	u, err := url.Parse(v)
	if err == nil && (u.Scheme == "https" || u.Scheme == "http") && u.Host != "" && u.User == nil && !strings.ContainsAny(v, " '\"`$\\<>[]") {
		return nil
	}
	return usage("bad-url", "this is not the address of a web page").
		Do("write it like address-url = \"https://ip.example.net/\", or delete the line")
}
