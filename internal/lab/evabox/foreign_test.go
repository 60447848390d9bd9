package evabox_test

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/heimweg/heimweg/internal/lab/evabox"
)

// held is an emulated 4040 on a loopback port that waits for ever in its window.
func held(t *testing.T, f evabox.Faults) (*evabox.Box, netip.AddrPort) {
	t.Helper()
	network := evabox.NewLoopback()
	box := evabox.New(network, evabox.Options{Faults: f, Times: evabox.Times{Link: 1, Stack: 1, Window: time.Hour,
		Erase: 1, Check: 1, Late: 1, Rate: 1 << 30}})
	t.Cleanup(box.Close)
	box.Power(true)
	select {
	case at := <-network.FTP:
		return box, at
	case <-t.Context().Done():
		t.Fatal("the box did not open its port")
	}
	return nil, netip.AddrPort{}
}

// program returns the path of a foreign program, or skips and names it.
func program(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("not judged by %s: not installed here", name)
	}
	return path
}

func run(t *testing.T, limit time.Duration, name string, args ...string) (string, error) {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), limit)
	defer stop()
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	return string(out), err
}

// curl finds EPSV refused, takes PASV and writes the image (facts eva 7.6).
func TestCurlWrites(t *testing.T) {
	curl := program(t, "curl")
	box, at := held(t, evabox.Faults{})
	image := evabox.Image4040(100_000, 200_000)
	path := filepath.Join(t.TempDir(), "image.bin")
	if err := os.WriteFile(path, image, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := run(t, time.Minute, curl, "-sS", "--noproxy", "*", "-u", "adam2:adam2", "-Q", "MEDIA FLSH", "-T", path, fmt.Sprintf("ftp://%s/mtd1", at))
	if err != nil || !bytes.Equal(box.Flash("mtd1"), image) {
		t.Errorf("%v %s\n%s", err, out, strings.Join(box.Record(), "\n"))
	}
	record := strings.Join(box.Record(), "\n")
	for _, line := range []string{"> EPSV\n< 502 Command not implemented\n> PASV", "> TYPE I", "> STOR mtd1"} {
		if !strings.Contains(record, line) {
			t.Errorf("no %q in\n%s", line, record)
		}
	}
}

// curl waits for the end of a download that never ends (facts eva 7.6).
func TestCurlHangsReadingTheEnvironment(t *testing.T) {
	curl := program(t, "curl")
	_, at := held(t, evabox.Faults{})
	out, err := run(t, time.Minute, curl, "-sS", "-m", "2", "--noproxy", "*", "-u", "adam2:adam2", "-Q", "MEDIA SDRAM", fmt.Sprintf("ftp://%s/env", at))
	if err == nil || !strings.Contains(out, "timed out") || !strings.Contains(out, "HWRevision            227") {
		t.Errorf("%v %s", err, out)
	}
}

const script = `
import ftplib, socket, sys
host, port, path = sys.argv[1], int(sys.argv[2]), sys.argv[3]
f = ftplib.FTP()
f.connect(host, port, 5)
f.login('adam2', 'adam2')
print(f.sendcmd('SYST'))
f.voidcmd('MEDIA FLSH')
f.voidcmd('TYPE I')
print(f.storbinary('STOR mtd1', open(path, 'rb')))
f.sock.settimeout(1)
try:
    f.voidcmd('CHECK mtd1')
    print('check ended')
except ftplib.error_reply as e:
    print('check', e)
try:
    print('GETENV', f.sendcmd('GETENV HWRevision'))
except Exception as e:
    print('GETENV', type(e).__name__, e)
try:
    print('next', f.sendcmd('TYPE I'))
except Exception as e:
    print('next', type(e).__name__)
`

// Python's ftplib writes the image, and trips over CHECK's 150 and over GETENV,
// after which its replies are those of the command before (facts eva 0.1).
func TestPythonWrites(t *testing.T) {
	python := program(t, "python3")
	box, at := held(t, evabox.Faults{})
	image := evabox.Image4040(100_000, 200_000)
	path := filepath.Join(t.TempDir(), "image.bin")
	if err := os.WriteFile(path, image, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := run(t, time.Minute, python, "-c", script, at.Addr().String(), fmt.Sprint(at.Port()), path)
	if err != nil || !bytes.Equal(box.Flash("mtd1"), image) {
		t.Errorf("%v %s\n%s", err, out, strings.Join(box.Record(), "\n"))
	}
	for _, line := range []string{"215 AVM EVA Version 1.3620 0x0 0x240D", "226 Transfer complete", "check 150 Flash check 0x", "GETENV error_proto HWRevision", "next error_proto"} {
		if !strings.Contains(out, line) {
			t.Errorf("no %q in\n%s", line, out)
		}
	}
}
