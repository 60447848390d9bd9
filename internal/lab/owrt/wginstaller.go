package owrt

import "strings"

// wg-installer-server leaves more on a router than its own files (facts: OpenWrt
// section 7.2, read from its source): its postinst adds a login with a published
// password to rpcd, and its init script, the last to start, adds a cron job at each
// boot unless it is there. Taking the package out leaves both behind.
const (
	installerLogin = "\nconfig login\n\toption username 'wginstaller'\n\toption password 'wginstaller'\n\tlist read 'wginstaller'\n\tlist write 'wginstaller'\n"
	installerInit  = `=#!/bin/sh /etc/rc.common

START=99

boot() {
	grep -q wginstaller /etc/crontabs/root 2>/dev/null || echo "*/10 * * * * . /usr/share/wginstaller/wg_functions.sh; wg_check_interfaces" >>/etc/crontabs/root
}
`
)

var installerFiles = map[string]string{
	"/etc/init.d/wg-installer":               installerInit,
	"/etc/rc.d/S99wg-installer":              installerInit,
	"/usr/share/rpcd/acl.d/wginstaller.json": "={}\n",
	"/usr/share/wginstaller/wg_functions.sh": "=#!/bin/sh\n",
	"/usr/libexec/rpcd/wginstaller":          "=#!/bin/sh\n",
}

// settle does what a package's postinst does beside unpacking.
func (k *packages) settle(d pkgDef) error {
	if d.name != "wg-installer-server" {
		return nil
	}
	const file = "/etc/config/rpcd"
	text, _ := k.s.fs.ReadFile(file)
	if strings.Contains(string(text), "wginstaller") {
		return nil
	}
	return k.s.fs.WriteFile(file, append(text, installerLogin...), 0o600)
}
