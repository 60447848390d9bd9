package firmware

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/heimweg/heimweg/internal/lab/mirror"
)

func TestBuild(t *testing.T) {
	for _, tt := range []struct {
		name    string
		builder mirror.Builder
		fault   mirror.Fault
		status  int // of the BuildError; -1: another error, PlainInstead all the same
		took    time.Duration
	}{
		{"at once", mirror.Builder{}, mirror.Fault{}, 0, 0},
		{"after a queue", mirror.Builder{Queue: 3, Building: 2}, mirror.Fault{}, 0, 25 * time.Second},
		{"a poll gets lost", mirror.Builder{Queue: 3}, mirror.Fault{Path: "*", Do: mirror.Reset, At: 0, Times: 0}, -1, 0},
		{"refused", mirror.Builder{Refuse: 400, Detail: "Unsupported version"}, mirror.Fault{}, 400, 0},
		{"not understood", mirror.Builder{Refuse: 422}, mirror.Fault{}, 422, 0},
		{"overloaded", mirror.Builder{Refuse: 529}, mirror.Fault{}, 529, 0},
		{"failed", mirror.Builder{Refuse: 500, Queue: 1, Detail: "Selected packages exceed device storage"}, mirror.Fault{}, 500, 5 * time.Second},
		{"forgotten", mirror.Builder{Queue: 2, Forget: true}, mirror.Fault{}, 404, 5 * time.Second},
		{"never ends", mirror.Builder{Queue: 1 << 20}, mirror.Fault{}, -2, 15 * time.Minute},
		{"no image for the boot loader", mirror.Builder{NoEVA: true}, mirror.Fault{}, -1, 0},
		{"a page", mirror.Builder{}, mirror.Fault{Path: "build", Do: mirror.WebPage}, -1, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := mirror.New(mirror.Options{Kernel: 20_000, Root: 50_000, Builder: tt.builder})
			if tt.fault.Do != 0 {
				m.Break(tt.fault)
			}
			synctest.Test(t, func(t *testing.T) {
				b, err := NewBuilder(BuilderOptions{From: "https://builder.example.net", Transport: m.Transport(), Cache: t.TempDir(), Agent: "heimweg/test"})
				if err != nil {
					t.Fatal(err)
				}
				var seen []int
				start := time.Now()
				f, err := b.Build(t.Context(), want4040, []string{"wireguard-tools"}, func(b Building) { seen = append(seen, b.Position) }, nil)
				took := time.Since(start)
				why, plain := PlainInstead(err)
				if tt.status == 0 {
					if err != nil || f.Signed.Method != ByTLS || f.Signed.Signed() || sumFile(f.Path) != f.SHA256 {
						t.Fatalf("%+v %v", f, err)
					}
					got, _ := os.ReadFile(f.Path)
					if made, ok := m.Lookup(got); !ok || !slices.Equal(made.Packages, []string{"wireguard-tools"}) {
						t.Errorf("%+v", made)
					}
					if tt.builder.Queue > 0 && !slices.Equal(seen, []int{3, 2, 1, 0, 0}) {
						t.Errorf("positions %v", seen)
					}
				} else if err == nil || !plain || why == "" {
					t.Fatalf("%+v %v %q", f, err, why)
				}
				var e *BuildError
				if asErrInto(err, &e); tt.status > 0 && (e == nil || e.Status != tt.status) || tt.status == -2 && (e == nil || e.Waited == "") {
					t.Errorf("%v", err)
				}
				if tt.took != 0 && took != tt.took {
					t.Errorf("took %s, expected %s", took, tt.took)
				}
			})
			// What the builder learned: nothing but these fields.
			for _, ask := range m.Builds() {
				var fields map[string]any
				if err := json.Unmarshal([]byte(ask.Raw), &fields); err != nil {
					t.Fatal(err)
				}
				for name := range fields {
					if !strings.Contains(" distro version target profile packages diff_packages client ", " "+name+" ") {
						t.Errorf("the builder is told %s", name)
					}
				}
			}
		})
	}
}

func FuzzBuildAnswer(f *testing.F) {
	f.Add([]byte(`{"request_hash":"abcdefgh","bin_dir":"../..","images":[{"name":"a","type":"eva","sha256":"00"}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		a := new(buildAnswer)
		if json.Unmarshal(b, a) != nil {
			return
		}
		a.text()
		if e, err := a.image(want4040); err == nil && (!safeName(e.Name) || !safePath(a.BinDir)) {
			t.Fatalf("%+v %q", e, a.BinDir)
		}
	})
}

// What came over plain HTTP is not said to have come over TLS.
func TestBuilderHTTP(t *testing.T) {
	m := mirror.New(mirror.Options{Kernel: 20_000, Root: 50_000})
	synctest.Test(t, func(t *testing.T) {
		b, err := NewBuilder(BuilderOptions{From: "http://127.0.0.1:8000", Transport: m.Transport(), Cache: t.TempDir(), Agent: "heimweg/test"})
		if err != nil {
			t.Fatal(err)
		}
		f, err := b.Build(t.Context(), want4040, []string{"wireguard-tools"}, nil, nil)
		if err != nil || f.Signed.Method != ByHTTP || f.Signed.Signed() || f.Signed.String() != "not signed, and nothing protected it on its way from 127.0.0.1:8000" {
			t.Errorf("%q %v", f.Signed, err)
		}
	})
}
