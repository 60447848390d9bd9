package trace

// Cause is why a packet died, for programs. The set only grows.
type Cause string

// The causes, by the hop where they kill.
const (
	NotAllowedIPs   Cause = "not-in-allowed-ips"  // the device sends it past the tunnel
	NoAddress       Cause = "no-address"          // the device has no address of that family
	NotRouted       Cause = "not-routed"          // it never comes to the router
	NoName          Cause = "endpoint-unresolved" // the endpoint's name has no address
	NameElsewhere   Cause = "endpoint-elsewhere"  // it leads to somebody else
	NamePrivate     Cause = "endpoint-private"    // it leads to an address that the internet does not deliver to
	NoMapping       Cause = "no-mapping"          // the ISP router sends the port nowhere
	MappedElsewhere Cause = "mapped-elsewhere"    // … to another address
	MappedPort      Cause = "mapped-to-port"      // … to another port
	NoUplink        Cause = "no-uplink"           // the home router has no address on its WAN side
	DoorClosed      Cause = "door-closed"         // the firewall does not let the port in
	NobodyListens   Cause = "nobody-listens"      // nothing has that port open
	TunnelDown      Cause = "tunnel-down"         // the tunnel's interface is not there
	ServerKey       Cause = "router-key"          // the device knows another key of the router
	PeerKey         Cause = "peer-key"            // the router knows another key of the device
	PeerOff         Cause = "peer-off"            // the device is switched off in home.toml or on the router
	PeerNotLive     Cause = "peer-not-live"       // it is in the file, the tunnel was not told
	PeerMissing     Cause = "peer-missing"        // the router does not know the device at all
	Preshared       Cause = "preshared-key"       // the preshared keys differ
	SharedKey       Cause = "shared-key"          // two devices have one key
	NotItsSource    Cause = "source-not-its-own"  // the peer may not send with that source
	NoWayOut        Cause = "no-way-out"          // the router's answers to the handshake go astray
	Refused         Cause = "refused"             // the firewall does not pass it on, or not in
	NoRoute         Cause = "no-route"            // the router knows no way there
	DeviceDown      Cause = "device-down"         // the network it has to go out by is not up
	NoPeerFor       Cause = "no-peer-for"         // no peer has the destination in its AllowedIPs
	NoEndpoint      Cause = "no-endpoint"         // that peer was not heard yet
	NobodyThere     Cause = "nobody-there"        // nobody in the LAN answers for the address
	NoWayBack       Cause = "no-way-back"         // the answer does not come back to the router
	AnswerAstray    Cause = "answer-astray"       // the router sends the answer elsewhere
	AnswerStolen    Cause = "answer-stolen"       // another peer gets the answer
	AnswerRefused   Cause = "answer-refused"      // the device does not take it
)
