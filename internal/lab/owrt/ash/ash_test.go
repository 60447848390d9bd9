package ash

import (
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/heimweg/heimweg/internal/lab/owrt/boxfs"
)

func testKernel() *Kernel {
	f := boxfs.New(1 << 20)
	k := NewKernel(f)
	for _, d := range []string{"/bin", "/dev", "/etc", "/root"} {
		f.MkdirAll(d, 0o755)
	}
	f.MountRAM("/tmp")
	f.MountRAM("/dev")
	f.Device("/dev/null", "null")
	k.Programs["sh"] = Sh
	k.Programs["sleep"] = func(p *Proc, a []string) int {
		d, _ := time.ParseDuration(a[1] + "s")
		p.Sleep(d)
		return 0
	}
	k.Programs["cat"] = func(p *Proc, a []string) int { io.Copy(p.Stdout(), p.Stdin()); return 0 }
	for n := range k.Programs {
		f.WriteFile("/bin/"+n, ELF(n), 0o755)
	}
	return k
}

// Each script's output was compared with busybox ash's documented behaviour
// (POSIX where busybox is silent).
func TestShell(t *testing.T) {
	for _, c := range []struct {
		name, script, out string
		status            int
	}{
		{"words", `a="x y"; echo $a "$a" '$a' {1,2}`, "x y x y $a {1,2}\n", 0},
		{"escapes in assignments", `a='it'\''s'; b=x\ y\\; echo "$a" "$b"`, "it's x y\\\n", 0},
		{"status", `false; echo $?; x=$(exit 3); echo $?; true | false; echo $?`, "1\n3\n1\n", 0},
		{"functions", `f() { local a="$1 z"; echo "$a"; return 4; }; a=1; f "p q" || echo $? $a`, "p q z\n4 1\n", 0},
		{"loop", "for i in a b c; do [ $i = b ] && continue; echo $i; done; i=0; while [ $i -lt 3 ]; do i=$((i+1)); done; echo $i", "a\nc\n3\n", 0},
		{"case", `case /etc/config/x in /etc/*) echo yes;; *) echo no;; esac`, "yes\n", 0},
		{"heredoc", "v=1; cat <<A; cat <<'B'; cat <<-C\nx $v\nA\ny $v\nB\n\tz\n\tC\n", "x 1\ny $v\nz\n", 0},
		{"errexit", "set -e; false || echo on; if false; then :; fi; (exit 3); echo never", "on\n", 3},
		{"nounset", `set -u; echo ${x:-d}; echo $x; echo never`, "d\n", 2},
		{"exit trap", `trap 'echo bye $?' EXIT; exit 5`, "bye 5\n", 5},
		{"redirect", "{ echo a; echo b >&2; } >/tmp/o 2>&1; cat </tmp/o; echo c >>/tmp/o; cat </tmp/o", "a\nb\na\nb\nc\n", 0},
		{"pipe", "printf '%s\\n' 1 2 3 | while read x; do echo \"<$x>\"; done", "<1>\n<2>\n<3>\n", 0},
		{"sigpipe", "( while :; do echo y || exit 9; done ) | { read a; echo $a; }", "y\n", 0},
		{"not found", "nosuch; echo $?; command -v nosuch || echo none", "127\nnone\n", 0},
		{"glob", `mkdir() { :; }; echo x >/tmp/a.1; echo y >/tmp/a.2; echo /tmp/a.* /tmp/q*`, "/tmp/a.1 /tmp/a.2 /tmp/q*\n", 0},
		{"exec fd", "exec 3>/tmp/f; echo hi >&3; exec 3>&-; cat </tmp/f", "hi\n", 0},
		{"kill", `sleep 100 & p=$!; kill $p; wait $p; echo $?`, "143\n", 0},
		{"term trap", `sh -c 'trap "echo got; exit 7" TERM; sleep 100 & wait' & p=$!; sleep 0.05; kill $p; wait $p; echo $?`, "got\n7\n", 0},
		{"getopts", `set -- -a -b v w; while getopts ab: o; do echo $o $OPTARG; done; shift $((OPTIND-1)); echo $1`, "a\nb v\nw\n", 0},
		{"params", `x=a/b/c.tar; echo ${x##*/} ${x%.tar} ${#x} ${y:=q} $y`, "c.tar a/b/c 9 q q\n", 0},
		{"cut script", "echo one\nif true; then echo two\n", "one\n", 2},
		{"printf", `printf '%s-%d\n%%\\n' a 5; printf '%03d %x|%b' 7 255 'a\nb'`, "a-5\n%\\n007 ff|a\nb", 0},
		{"read ifs", `printf 'a:b c:d\n' | { IFS=: read x y; echo "$x|$y"; }`, "a|b c:d\n", 0},
		{"subshell", `x=1; (x=2; echo $x); echo $x; echo $$ >/tmp/p; (echo $$) >/tmp/q; [ "$(cat </tmp/p)" = "$(cat </tmp/q)" ] && echo same`, "2\n1\nsame\n", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := testKernel()
			out, errs, st := k.Output([]string{"sh"}, c.script)
			if out != c.out || st != c.status {
				t.Errorf("got %q status %d (stderr %q)\nwant %q status %d", out, st, errs, c.out, c.status)
			}
			k.Halt()
			k.Wait()
		})
	}
}

func TestBackgroundOutlivesShell(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := testKernel()
		_, _, st := k.Output([]string{"sh"}, "( sleep 60; echo done >/tmp/x ) >/dev/null 2>&1 </dev/null &\n")
		if st != 0 {
			t.Fatal(st)
		}
		if _, err := k.FS.Stat("/tmp/x"); err == nil {
			t.Fatal("too early")
		}
		time.Sleep(61 * time.Second)
		if b, _ := k.FS.ReadFile("/tmp/x"); strings.TrimSpace(string(b)) != "done" {
			t.Fatalf("%q", b)
		}
		k.Halt()
		k.Wait()
	})
}
