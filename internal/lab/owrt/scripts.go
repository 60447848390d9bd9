package owrt

import "io/fs"

func modeOf(m int) fs.FileMode { return fs.FileMode(m) }

// scripts are the shell scripts that every image has. rc.common keeps the
// conventions that init scripts rely on (OpenWrt package/base-files/files/etc/rc.common):
// START and STOP, start/stop/restart/reload/boot/enable/disable/enabled, and
// USE_PROCD with start_service, stop_service, reload_service and service_triggers.
// The text is ours.
var scripts = map[string]string{
	"/etc/rc.common": `#!/bin/sh
initscript="$1"
action="${2:-help}"
shift 2

start() { return 0; }
stop() { return 0; }
reload() { restart; }
restart() { trap '' TERM; stop "$@"; start "$@"; }
boot() { start "$@"; }
shutdown() { stop; }
_name() { name="$(basename "$initscript")"; case "$name" in S[0-9][0-9]*) name="${name#S[0-9][0-9]}";; K[0-9][0-9]*) name="${name#K[0-9][0-9]}";; esac; }
disable() { _name; rm -f /etc/rc.d/S??$name /etc/rc.d/K??$name; }
enable() {
	err=1; _name
	[ "$START" ] && ln -sf "../init.d/$name" "/etc/rc.d/S$START$name" && err=0
	[ "$STOP" ] && ln -sf "../init.d/$name" "/etc/rc.d/K$STOP$name" && err=0
	return $err
}
enabled() { _name; [ -x "/etc/rc.d/S$START$name" ]; }
running() { _name; /sbin/.service "$name" running; }
status() { if running; then echo "running"; else echo "inactive"; return 3; fi; }
extra_command() { EXTRA_COMMANDS="$EXTRA_COMMANDS $1"; }
help() {
	echo "Syntax: $initscript [command]"
	echo
	echo "Available commands:"
	for c in start stop restart reload enable disable enabled; do echo "	$c"; done
}

procd_open_instance() { :; }
procd_close_instance() { :; }
procd_add_reload_trigger() { :; }
procd_add_interface_trigger() { :; }
procd_open_trigger() { :; }
procd_close_trigger() { :; }
procd_add_validation() { :; }
procd_append_param() { :; }
procd_set_param() { if [ "$1" = command ]; then shift; _name; /sbin/.service "$name" run "$@"; fi; }

. "$initscript"

if [ -n "$USE_PROCD" ]; then
	start() { start_service "$@"; }
	stop() { if command -v stop_service >/dev/null; then stop_service "$@"; else _name; /sbin/.service "$name" kill; fi; }
	reload() { if command -v reload_service >/dev/null; then reload_service "$@"; else start; fi; }
	service_running() { running; }
fi

case " start stop restart reload boot shutdown enable disable enabled running status help $EXTRA_COMMANDS " in
	*" $action "*) ;;
	*) help; exit 1;;
esac
if [ "$action" = reload ]; then
	reload "$@" || restart "$@" && :
else
	$action "$@"
fi
`,
	"/sbin/ifup.sh": "",
	"/sbin/reload_config": `#!/bin/sh
rm -rf /var/run/config.check
mkdir -p /var/run/config.check
for config in /etc/config/*; do
	file=${config##*/}
	uci show "${file##*/}" > /var/run/config.check/$file 2>/dev/null
done
MD5FILE=/var/run/config.md5
[ -f $MD5FILE ] && {
	for c in $(md5sum -c $MD5FILE 2>/dev/null| grep FAILED | cut -d: -f1); do
		ubus call service event "{ \"type\": \"config.change\", \"data\": { \"package\": \"$(basename $c)\" }}"
	done
}
md5sum /var/run/config.check/* > $MD5FILE
rm -rf /var/run/config.check
`,
	"/sbin/service.sh": "",
	"/lib/functions.sh": `# The functions that small scripts use.
append() { eval "export -- \"$1=\${$1:+\${$1}${3:- }}$2\""; }
list_contains() { eval "case \" \${$1} \" in *\" $2 \"*) return 0;; *) return 1;; esac"; }
`,
	"/etc/hotplug.d/iface/20-firewall": "#!/bin/sh\n# done by netifd's side of the box\n",
}

func init() {
	delete(scripts, "/sbin/ifup.sh")
	delete(scripts, "/sbin/service.sh")
}

// service is one init script of the image.
type service struct {
	start, stop int
	only        func(Options) bool
}

func withLuCI(o Options) bool { return o.LuCI }

// services and their places in the boot order (OpenWrt, package/*/files/*.init).
var services = map[string]service{
	"boot": {start: 10}, "system": {start: 10}, "sysctl": {start: 11}, "log": {start: 12, stop: 89},
	"firewall": {start: 19}, "dnsmasq": {start: 19}, "dropbear": {start: 19, stop: 50}, "network": {start: 20, stop: 90},
	"odhcpd": {start: 35}, "cron": {start: 50}, "sysntpd": {start: 98}, "done": {start: 95}, "led": {start: 96},
	"rpcd": {start: 12, only: withLuCI}, "uhttpd": {start: 50, only: withLuCI},
}
