package busybox

import (
	"fmt"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/heimweg/heimweg/internal/lab/owrt/ash"
	"github.com/heimweg/heimweg/internal/lab/owrt/boxfs"
)

func TestApplets(t *testing.T) {
	a, err := txtar.ParseFile("testdata/applets.txtar")
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(a.Files); i += 2 {
		script, want := a.Files[i], a.Files[i+1]
		t.Run(script.Name, func(t *testing.T) {
			f := boxfs.New(1 << 20)
			for _, d := range []string{"/bin", "/root"} {
				f.MkdirAll(d, 0o755)
			}
			f.MountRAM("/tmp")
			f.MountRAM("/dev")
			f.Device("/dev/null", "null")
			k := ash.NewKernel(f)
			k.Unknown = func(name string) { t.Errorf("unknown: %s", name) }
			for n, p := range Applets() {
				k.Programs[n] = p
				f.WriteFile("/bin/"+n, ash.ELF(n), 0o755)
			}
			out, errs, st := k.Output([]string{"sh"}, "exec 2>&1\n"+string(script.Data))
			if st != 0 {
				out += fmt.Sprintf("exit %d\n", st)
			}
			if out != string(want.Data) || strings.TrimSpace(errs) != "" {
				t.Errorf("got\n%s%s\nwant\n%s", out, errs, want.Data)
			}
			k.Halt()
			k.Wait()
		})
	}
}
