package plan

import "github.com/heimweg/heimweg/internal/uci"

// ddnsPassword is the option that holds the password at a DDNS service.
const ddnsPassword = "password"

// ddnsAccount tells accounts at DDNS services apart. A password goes along only
// where the service and the user stay the same: another service must never be
// told it.
func ddnsAccount(s uci.Section) string {
	account := "account"
	for _, option := range []string{"service_name", "update_url", "username"} {
		v, _ := s.Get(option)
		account += "\x00" + v
	}
	return account
}
