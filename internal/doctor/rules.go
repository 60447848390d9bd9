package doctor

import "slices"

// Rules are all rules, the deepest first: from the cable to the name service.
func Rules() []Rule {
	return slices.Concat(loginRules, boxRules, uplinkRules, tunnelRules, deviceRules, firewallRules, ispRules, addressRules, lanRules, insideRules, lastRules)
}
