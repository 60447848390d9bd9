package isprouters

import "net/netip"

// generic is any router.
var generic = Router{
	ID: "generic", Name: "ISP router",
	words: text{
		en: `port forwarding, port sharing, port mapping, virtual server, NAT, applications & gaming`,
		de: `Portfreigabe, Portfreischaltung, Portweiterleitung, Port-Mapping, virtueller Server, NAT`,
	},
	open6: text{
		en: `look for the IPv6 firewall, and allow the same port to the home router's own IPv6 address`,
		de: `die IPv6-Firewall suchen und denselben Port zur eigenen IPv6-Adresse des Heimrouters erlauben`,
	},
	source: "words that such pages use",
}

// routers is the list. A path is what its source says; dates are when it was read.
var routers = []Router{
	{
		ID: "fritzbox", Name: "FRITZ!Box", page: "http://fritz.box",
		marks:   []string{"fritz!box", "fritz box", "fritzbox", "avm"},
		address: netip.MustParseAddr("192.168.178.1"),
		fix: text{
			en: `Home Network › Network › Network Connections, edit the home router: "Always assign this network device the same IPv4 address"`,
			de: `Heimnetz › Netzwerk › Netzwerkverbindungen, den Heimrouter bearbeiten: „Diesem Netzwerkgerät immer die gleiche IPv4-Adresse zuweisen“`,
		},
		open: text{
			en: `Internet › Permit Access › Port Sharing: add the home router as a device, and a new port sharing for it`,
			de: `Internet › Freigaben › Portfreigaben › „Gerät für Freigaben hinzufügen“, den Heimrouter wählen › „Neue Freigabe“ › „Portfreigabe“ › „Andere Anwendung“`,
		},
		fields: text{
			en: `Protocol %[1]s, Port to device %[3]d, External port %[2]d, device %[4]s`,
			de: `Protokoll %[1]s, Port an Gerät %[3]d bis %[3]d, Port extern gewünscht %[2]d, Gerät %[4]s`,
		},
		open6: text{
			en: `in the same place: a sharing for IPv6 with the same port, once IPv6 is switched on`,
			de: `an derselben Stelle: eine Freigabe für IPv6 mit demselben Port, sobald IPv6 eingeschaltet ist`,
		},
		permit: text{
			en: `Home Network › Network Connections, edit the home router, and tick that this device may open ports by PCP or UPnP`,
			de: `Heimnetz › Netzwerkverbindungen, den Heimrouter bearbeiten, Haken bei „Diesem Netzwerkgerät gestatten, Portfreigaben per PCP oder UPnP anzulegen“ (neuere FRITZ!OS: beim Gerät unter Internet › Freigaben)`,
		},
		words: text{en: `port sharing`, de: `Portfreigaben`},
		asOf:  both(`FRITZ!OS 7, 8`),
		source: "AVM, help pages hilfe_portfreigabe of FRITZ!Box 7430 (German) and 7530 (English), knowledge base 894; " +
			"button names of FRITZ!OS 7 and 8: MinifyX/UwUMail-Server, install guide",
	},
	{
		ID: "speedport", Name: "Speedport", page: "http://speedport.ip",
		marks: []string{"speedport"},
		fix:   both(`Heimnetzwerk › Geräte`),
		open: text{
			en: `switch "Ansicht" to "Experte"; Internet › Portfreischaltung, choose the home router › "Port-Weiterleitung" ("Port-Umleitung" if the two ports differ)`,
			de: `„Ansicht“ auf „Experte“ stellen; Internet › Portfreischaltung, den Heimrouter wählen › „Port-Weiterleitung“ („Port-Umleitung“, wenn die Ports verschieden sind)`,
		},
		open6:  text{en: `in the same place`, de: `an derselben Stelle`},
		words:  both(`Portfreischaltung, Port-Weiterleitung`),
		asOf:   both(`Speedport Smart 3, 4`),
		source: "MinifyX/UwUMail-Server, install guide; the words also in Telekom's manual of the Speedport Hybrid, page 85",
	},
	{
		ID: "vodafone", Name: "Vodafone Station",
		marks: []string{"vodafone", "cga4233de", "cga4322de", "cga6444vf", "tg3442de", "tg6442vf"},
		beware: text{
			en: `many cable lines have no public IPv4 address (DS-Lite); then no mapping works and the menu may be missing. Ask Vodafone for "Dual Stack"`,
			de: `viele Kabelanschlüsse haben keine öffentliche IPv4-Adresse (DS-Lite); dann hilft keine Freigabe, und der Menüpunkt kann fehlen. Bei Vodafone nach „Dual Stack“ fragen`,
		},
		words: text{
			en: `port forwarding, port mapping; switch to the expert mode if there is one`,
			de: `Port-Weiterleitung, Portfreigabe, Port-Mapping; auf den Expertenmodus umschalten, wenn es einen gibt`,
		},
		source: "no page of Vodafone's was found; DS-Lite: MinifyX/UwUMail-Server, install guide",
	},
	{
		ID: "livebox", Name: "Livebox", page: "http://livebox",
		marks:  []string{"livebox"},
		fix:    both(`Réseau › DHCP › « Baux DHCP statiques » › Ajouter`),
		open:   both(`Paramètres avancés › Réseau › NAT/PAT`),
		fields: both(`Protocole %[1]s, Port externe %[2]d, Port interne %[3]d, Équipement %[4]s`),
		open6:  both(`Paramètres avancés › Pare-feu: IPv6, Port %[2]d, Protocole %[1]s`),
		words:  both(`NAT/PAT, Pare-feu`),
		asOf:   both(`Livebox 6, 7`),
		source: "assistance.orange.fr as quoted in a guide of October 2026; firewall: a gist of jehanf's",
	},
	{
		ID: "bbox", Name: "Bbox", page: "https://mabbox.bytel.fr",
		marks:  []string{"bbox", "bouygues"},
		open:   both(`Réseau › « NAT/PAT » / « Redirection de ports »`),
		words:  both(`NAT/PAT, redirection de ports`),
		source: "ladsl.com as quoted in a guide of October 2026; no page of Bouygues's was found",
	},
	{
		ID: "freebox", Name: "Freebox", page: "http://mafreebox.freebox.fr",
		marks: []string{"freebox"},
		fix:   both(`« DHCP » / « baux statiques »`),
		open:  both(`« Paramètres de la Freebox » › « Mode avancé » › « Gestion des ports » (Freebox Connect: Réseau › … › Paramètres réseau avancés › Redirection de port)`),
		beware: text{
			en: `a line with a shared IPv4 address has a range of ports only, shown under "État de la Freebox"; a full address is asked for in the Espace Abonné ("adresse IP V4 fixe full-stack")`,
			de: `ein Anschluss mit geteilter IPv4-Adresse hat nur einen Bereich von Ports, er steht unter „État de la Freebox“; eine ganze Adresse gibt es auf Wunsch im Espace Abonné („adresse IP V4 fixe full-stack“)`,
		},
		words:  both(`gestion des ports, redirection de port`),
		source: "wiki of Aymkdn/assistant-freebox-cloud (2024, 2026); assistance.free.fr articles 1395 and 1758 as quoted in a guide of October 2026",
	},
	{
		ID: "sfr", Name: "SFR Box",
		marks:  []string{"sfr", "neufbox"},
		fix:    both(`LAN › « Baux statique » › « ajouter bail statique »`),
		open:   both(`Sécurité › Accès › Réseau v4 › « Redirection des ports » › « Créer une règle »`),
		words:  both(`redirection des ports`),
		asOf:   both(`SFR Box 8`),
		source: "assistance.sfr.fr, Box 8, as quoted in a guide of October 2026",
	},
	{
		ID: "kpn", Name: "KPN Box",
		marks:  []string{"kpn", "experia", "experiabox", "h369a", "h368n"},
		words:  both(`port forwarding, poort doorsturen, NAT`),
		source: "no page of KPN's was found",
	},
	{
		ID: "virgin", Name: "Virgin Media Hub",
		marks:  []string{"virgin media", "virginmedia", "super hub", "superhub"},
		fix:    both(`Advanced settings › DHCP › Reserved IP Addresses`),
		open:   both(`Advanced settings › Security › Port forwarding › Create a new rule`),
		fields: both(`IP address %[4]s, Local start and end port %[3]d, External start and end port %[2]d, Protocol %[1]s, Enabled On`),
		words:  both(`port forwarding`),
		asOf:   both(`Hub 3.0, 2021`),
		source: "NebraLtd/Helium-Guides, vm-superhub-v3 (2021)",
	},
	{
		ID: "bt", Name: "BT Hub",
		marks: []string{"smart hub", "home hub", "bt hub", "homehub6dx"},
		open: text{
			en: `Advanced Settings › Port Forwarding; on a Smart Hub look below "Advanced Settings" for it`,
			de: `Advanced Settings › Port Forwarding; bei einem Smart Hub unter „Advanced Settings“ danach suchen`,
		},
		words:  both(`port forwarding`),
		asOf:   both(`BT Home Hub, 2011`),
		source: "halfnetbiscuit.blogspot.com (2011) for the Home Hub; business.forums.bt.com names the tab of the Smart Hub 2; no page of BT's was found",
	},
	{
		ID: "sky", Name: "Sky Hub",
		marks: []string{"sky"},
		open:  both(`Security › Firewall Rules › Inbound Services › Add`),
		fields: text{
			en: `Service: one for %[1]s %[2]d (make it first if it is not in the list), Action: allow always, Send to LAN Server %[4]s`,
			de: `Service: einer für %[1]s %[2]d (vorher anlegen, wenn er nicht in der Liste steht), Action: allow always, Send to LAN Server %[4]s`,
		},
		words:  both(`inbound services, port forwarding`),
		asOf:   text{en: `the older hubs built by Sagem`, de: `die älteren, von Sagem gebauten Hubs`},
		source: "help page sky_firewall_rules-in of such a hub's own firmware",
	},
	{
		ID: "unifi", Name: "UniFi", page: "https://unifi.ui.com",
		marks:  []string{"unifi", "ubiquiti", "udm", "usg", "ucg"},
		fix:    both(`Client Devices › Settings › Fixed IP`),
		open:   both(`Network 10: Settings › Policy Engine › Policy Table › Create New Policy › Port Forwarding; Network 9: Settings › Routing › Port Forwarding; older: Settings › Security › Port Forwarding`),
		fields: both(`WAN Port %[2]d, From Any, Forward IP Address %[4]s, Forward Port %[3]d, Protocol %[1]s`),
		open6: text{
			en: `a firewall rule that allows the port from "Internet In" to the home router's own IPv6 address`,
			de: `eine Firewall-Regel, die den Port von „Internet In“ zur eigenen IPv6-Adresse des Heimrouters erlaubt`,
		},
		words:  both(`Port Forwarding`),
		asOf:   both(`UniFi Network 8, 9, 10`),
		source: "MinifyX/UwUMail-Server, install guide; NebraLtd/Helium-Guides, unifi (2021)",
	},
}
