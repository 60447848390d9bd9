package doctor

import "slices"

// all rules, the deepest first: from the cable to the name service.
var all = slices.Concat(loginRules, boxRules, uplinkRules, networkRules, tunnelRules, deviceRules, firewallRules,
	ispRules, addressRules, lanRules, insideRules, lastRules)

// Rules are all rules, the deepest first.
func Rules() []Rule { return slices.Clone(all) }
