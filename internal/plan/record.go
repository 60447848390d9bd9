package plan

import (
	"maps"
	"strings"

	"github.com/heimweg/heimweg/internal/router"
	"github.com/heimweg/heimweg/internal/uci"
)

// WrittenFormat is the number of the record's form.
const WrittenFormat = 1

// Written is what to note on the router when the plan has been carried out:
// after are the documents as they are now, last is the note that was there. The
// caller adds the id of the run and the version of the program.
func (p *Plan) Written(after map[string]*uci.Document, last router.Written) router.Written {
	w := digests(after, last)
	w.Adjusted = map[string]string{}
	maps.Copy(w.Adjusted, last.Adjusted)
	for _, s := range p.Steps {
		if s.Do != Adjust {
			continue
		}
		k := adjustKey(s)
		if _, before := w.Adjusted[k]; before {
			continue // the first value, before heimweg, is the one worth knowing
		}
		w.Adjusted[k] = ""
		if len(s.Old) > 0 {
			w.Adjusted[k] = strings.Join(s.Old[0].Values, " ")
		}
	}
	return w
}

func digests(docs map[string]*uci.Document, last router.Written) router.Written {
	w := router.Written{Format: WrittenFormat, Digests: map[string]string{}, Disabled: map[string]string{}}
	for _, config := range router.Touched() {
		if docs[config] == nil {
			continue
		}
		for _, s := range docs[config].Sections() {
			if !router.Ours(config, s, last) {
				continue
			}
			w.Digests[config+"."+s.Name] = s.Digest()
			if s.Type == router.ParkedType {
				w.Disabled[peerName(s)] = s.Digest()
			}
		}
	}
	return w
}

// record adds the last step: whenever something was written, and when the note
// on the router does not say what is there.
func (b *builder) record() {
	wrote := len(b.plan.Configs()) > 0
	if wrote {
		b.step(Step{Do: Record, Why: "so that changes by others can be told from ours"})
		return
	}
	now := digests(b.snap.Configs, b.last)
	if maps.Equal(now.Digests, b.last.Digests) && maps.Equal(now.Disabled, b.last.Disabled) {
		return
	}
	s := Step{Do: Record, Why: "the router's note of what heimweg wrote does not fit what is there"}
	for i := range b.final {
		if t := &b.final[i]; t.owned != nil && b.secretChanged("network", t.Section) {
			s.Drift, s.Who = true, "somebody changed a key in network."+t.Name+"; it is kept"
			break
		}
	}
	b.step(s)
}
