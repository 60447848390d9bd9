package lab

import (
	"crypto/ed25519"
	"fmt"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/ssh"
)

// A real SSH session in virtual time: many commands over two hops, one of them
// while the link is down for a minute.
func TestSSHInBubble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newStreet(t)
		serveSSH(t, st.right)
		conn, err := st.left.Dial(t.Context(), "tcp", "10.0.2.2:22")
		if err != nil {
			t.Fatal(err)
		}
		c, chans, reqs, err := ssh.NewClientConn(conn, "10.0.2.2:22", &ssh.ClientConfig{User: "root", HostKeyCallback: ssh.InsecureIgnoreHostKey()})
		if err != nil {
			t.Fatal(err)
		}
		client := ssh.NewClient(c, chans, reqs)
		defer client.Close()
		for i := range 20 {
			if i == 10 {
				st.leftLAN.Cut()
				st.w.After(time.Minute, st.leftLAN.Heal)
			}
			s, err := client.NewSession()
			if err != nil {
				t.Fatal(err)
			}
			out, err := s.Output(fmt.Sprint("echo ", i))
			if want := fmt.Sprint("echo ", i); string(out) != want || err != nil {
				t.Fatalf("%q, %v", out, err)
			}
		}
		// The power of the other end goes: the session ends once it is back.
		ifaces, routes := st.right.Ifaces(), st.right.conf.Load().routes
		st.right.PowerOff()
		st.w.After(30*time.Second, func() {
			st.right.PowerOn()
			st.right.Configure(ifaces, routes)
		})
		start := time.Now()
		if _, err := client.NewSession(); err == nil || time.Since(start) > 2*time.Minute {
			t.Errorf("%v after %s", err, time.Since(start))
		}
	})
}

// serveSSH answers every command with its own text.
func serveSSH(t *testing.T, s *Stack) {
	signer, err := ssh.NewSignerFromKey(ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)))
	if err != nil {
		t.Fatal(err)
	}
	conf := &ssh.ServerConfig{NoClientAuth: true}
	conf.AddHostKey(signer)
	_, err = s.Listen(22, func(nc net.Conn) {
		c, chans, reqs, err := ssh.NewServerConn(nc, conf)
		if err != nil {
			return
		}
		defer c.Close()
		go ssh.DiscardRequests(reqs)
		for nch := range chans {
			ch, reqs, err := nch.Accept()
			if err != nil {
				return
			}
			for r := range reqs {
				if r.Type == "exec" {
					r.Reply(true, nil)
					ch.Write(r.Payload[4:])
					ch.SendRequest("exit-status", false, make([]byte, 4))
					ch.Close()
				}
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
}
