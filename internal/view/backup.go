package view

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/heimweg/heimweg/internal/backup"
	"github.com/heimweg/heimweg/internal/plan"
	"github.com/heimweg/heimweg/internal/restore"
	"github.com/heimweg/heimweg/internal/router"
	"github.com/heimweg/heimweg/internal/upgrade"
)

// A Backup is what --json says of a backup: where it comes from, never what is in it.
type Backup struct {
	File     string    `json:"file,omitempty"`
	Made     time.Time `json:"made,omitzero"`
	Model    string    `json:"model,omitempty"`
	Board    string    `json:"board,omitempty"`
	Hostname string    `json:"hostname,omitempty"`
	Release  string    `json:"release,omitempty"`
	Packages []string  `json:"packages,omitempty"`
	Files    int       `json:"files"`
}

// BackupOf describes a backup.
func BackupOf(b backup.Backup, file string) Backup {
	return Backup{file, b.Made, b.Board.Model, b.Board.Name, b.Board.Hostname, b.Board.Release.Version, b.Packages, len(b.Files)}
}

// BackupLine is a backup in one line.
func BackupLine(b backup.Backup) string {
	s := fmt.Sprintf("%d files", len(b.Files))
	if len(b.Packages) > 0 {
		s += ", packages " + strings.Join(b.Packages, ", ")
	}
	return clean(s)
}

func (b Backup) String() string {
	if b.Model == "" {
		return "an archive of the router's own, without a word about its board"
	}
	return clean(fmt.Sprintf("%s, OpenWrt %s, of %s", b.Model, b.Release, b.Made.Format("2006-01-02 15:04")))
}

// Restore is what is going to be put back where.
type Restore struct {
	Backup   Backup
	Proposal restore.Proposal
	Board    router.Board
}

// MarshalJSON leaves out what holds secrets.
func (r Restore) MarshalJSON() ([]byte, error) {
	return json.Marshal(map[string]any{"backup": r.Backup, "board": r.Board, "plan": r.Proposal.Plan,
		"taken": r.Proposal.Fit.Taken, "left": r.Proposal.Fit.Left, "packages": r.Proposal.Packages})
}

// RestoreText shows it to a person.
func RestoreText(w io.Writer, st Style, r Restore) {
	fmt.Fprintf(w, "%s  %s\n", st.Strong("backup"), r.Backup)
	fmt.Fprintf(w, "%s  %s\n", st.Strong("box   "), clean(r.Board.Model+", OpenWrt "+r.Board.Release.Version))
	fmt.Fprintf(w, "  %s SSH host keys, login keys and root's password, as they were\n", st.Added("+"))
	for _, l := range r.Proposal.Fit.Taken {
		fmt.Fprintf(w, "  %s %-34s %s\n", st.Added("+"), clean(l.What), st.Dim(clean(l.Why)))
	}
	if len(r.Proposal.Packages) > 0 {
		fmt.Fprintf(w, "  %s packages %s\n", st.Added("+"), clean(strings.Join(r.Proposal.Packages, ", ")))
	}
	steps(w, st, r.Proposal.Plan)
	leftOut(w, st, "left out:", r.Proposal.Fit.Left)
}

// steps are the plan's own lines, without the router's headline.
func steps(w io.Writer, st Style, p *plan.Plan) {
	for _, s := range p.Steps {
		step(w, st, s, false)
	}
	for _, r := range p.Risks() {
		fmt.Fprintf(w, "  %s %s\n", st.Changed("!"), riskText(r))
	}
	notes(w, st, p)
	for _, f := range p.Blocked {
		fmt.Fprintln(w)
		one(w, st, f)
	}
}

func leftOut(w io.Writer, st Style, title string, list []backup.Line) {
	if len(list) == 0 {
		return
	}
	fmt.Fprintf(w, "  %s\n", st.Strong(title))
	for _, l := range list {
		fmt.Fprintf(w, "  %s %-34s %s\n", st.Removed("-"), clean(l.What), st.Dim(clean(l.Why)))
	}
}

// RestoredText shows what could not be done.
func RestoredText(w io.Writer, st Style, r restore.Result) {
	leftOut(w, st, "packages that are not there:", r.Missing)
	fmt.Fprintf(w, "%s the gateway is back; every device comes home with the configuration it has\n", st.Good("✓"))
}

// UpgradeText shows what an upgrade is going to do.
func UpgradeText(w io.Writer, st Style, p upgrade.Plan) {
	name := p.Model
	if p.Hostname != "" {
		name = p.Hostname + ": " + name
	}
	fmt.Fprintf(w, "%s\n", st.Strong(clean(name+", OpenWrt "+p.From+" → "+p.To)))
	fmt.Fprintf(w, "  image     %s\n", clean(p.Image+", "+p.Vouched))
	if p.Fresh {
		fmt.Fprintf(w, "  settings  %s\n", st.Changed("made anew from home.toml and the backup"))
		fmt.Fprintf(w, "            %s\n", st.Dim(clean(p.Why)))
	} else {
		fmt.Fprintln(w, "  settings  kept")
	}
	if len(p.Inside) > 0 {
		fmt.Fprintf(w, "  packages  %s in the image\n", clean(strings.Join(p.Inside, ", ")))
	}
	if len(p.After) > 0 {
		fmt.Fprintf(w, "  packages  %s installed afterwards\n", clean(strings.Join(p.After, ", ")))
	}
	fmt.Fprintf(w, "  backup    %s\n", clean(p.Backup))
	if !p.Fresh && p.Why != "" {
		fmt.Fprintf(w, "  %s %s\n", st.Dim("i"), clean(p.Why))
	}
}

// UpgradedText shows what came of it.
func UpgradedText(w io.Writer, st Style, r upgrade.Result) {
	if !r.Did {
		fmt.Fprintf(w, "%s OpenWrt %s is the newest that there is\n", st.Good("✓"), clean(r.To))
		return
	}
	leftOut(w, st, "left out (it is in the backup):", r.Left)
	leftOut(w, st, "packages that are not there:", r.Missing)
	fmt.Fprintf(w, "%s OpenWrt %s runs, and everything is as home.toml wants it; no device needs a new configuration\n", st.Good("✓"), clean(r.To))
	if r.Newer != "" {
		fmt.Fprintf(w, "  next  heimweg upgrade   goes on to %s\n", clean(r.Newer))
	} else {
		fmt.Fprintln(w, "  next  heimweg verify   lets a test device come home and proves it")
	}
}
