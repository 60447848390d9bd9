package cli

import (
	"crypto/rand"
	"fmt"
	"os"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/heimweg/heimweg/internal/key"
	"github.com/heimweg/heimweg/internal/lab/world"
)

// scriptConf writes a device's file as guides have it: conf FILE KEYFILE ADDRESS
// SERVERKEYFILE PORT.
func scriptConf(ts *testscript.TestScript, _ bool, args []string) {
	text := fmt.Sprintf("[Interface]\nPrivateKey = %s\nAddress = %s\n\n[Peer]\nPublicKey = %s\nEndpoint = %s:%s\nAllowedIPs = 192.168.1.0/24\n",
		strings.TrimSpace(ts.ReadFile(args[1])), args[2], strings.TrimSpace(ts.ReadFile(args[3])), world.EndpointName, args[4])
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(text), 0o600))
}

// scriptKeys writes a gateway's wg-quick file and that of its one device, with new
// keys: keys GATEWAY DEVICE GATEWAYADDRESS DEVICEADDRESS PORT.
func scriptKeys(ts *testscript.TestScript, _ bool, args []string) {
	server, err := key.NewPrivate(rand.Reader)
	ts.Check(err)
	device, err := key.NewPrivate(rand.Reader)
	ts.Check(err)
	psk, err := key.NewPreshared(rand.Reader)
	ts.Check(err)
	gateway := fmt.Sprintf("[Interface]\nAddress = %s\nPrivateKey = %s\nListenPort = %s\nPostUp = iptables -t nat -A POSTROUTING -o eth0 -j MASQUERADE\n\n# phone\n[Peer]\nPublicKey = %s\nPresharedKey = %s\nAllowedIPs = %s/32\n",
		args[2], server.Reveal(), args[4], device.Public(), psk.Reveal(), args[3])
	conf := fmt.Sprintf("[Interface]\nPrivateKey = %s\nAddress = %s/32\n\n[Peer]\nPublicKey = %s\nPresharedKey = %s\nEndpoint = %s:%s\nAllowedIPs = 192.168.1.0/24\n",
		device.Reveal(), args[3], server.Public(), psk.Reveal(), world.EndpointName, args[4])
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(gateway), 0o600))
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(conf), 0o600))
}
