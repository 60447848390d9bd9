package cli

import (
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/heimweg/heimweg/internal/fault"
	"github.com/heimweg/heimweg/internal/flash"
	"github.com/heimweg/heimweg/internal/plan"
)

// risksOf are the names that --accept-risk takes, by the command that asks for them.
func risksOf() map[string][]string {
	applying := []string{string(plan.DropsConnection), string(plan.ForgetsKeys), string(plan.DropsPeers), string(plan.PausesNetwork)}
	return map[string][]string{
		"apply":    applying,
		"doctor":   applying,
		"up":       append([]string{flash.Risk, riskUnverified}, applying...),
		"restore":  append([]string{riskReplaces, riskNewKey}, applying...),
		"upgrade":  {riskOverwrites, riskRemakes, riskUnverified},
		"flash":    {flash.Risk, riskUnverified},
		"firmware": {riskUnverified},
	}
}

// checkRisks refuses a loss that nobody knows: who mistypes its name has accepted
// nothing, and would hear of it only when the question comes.
func (a *app) checkRisks(cmd *cobra.Command) error {
	all := risksOf()
	known := slices.Concat(slices.Collect(maps.Values(all))...)
	for _, r := range a.risks {
		if slices.Contains(known, r) {
			continue
		}
		top := cmd
		for top.HasParent() && top.Parent().HasParent() {
			top = top.Parent()
		}
		f := fault.NewUsage("unknown-risk", "there is no risk %q to accept", r)
		if mine := all[top.Name()]; len(mine) > 0 {
			return f.Do("%s knows: %s", top.CommandPath(), strings.Join(mine, ", "))
		}
		return f.Do("leave --accept-risk out: %s asks about no loss", top.CommandPath())
	}
	return nil
}
