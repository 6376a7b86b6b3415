# shellcheck shell=bash
# shellcheck disable=SC2034 # what is set here is for the tests
# A real systemd as PID 1, for tests of the units: what `make install` installs, on this machine's own /usr,
# in a container (systemd-nspawn) with a network of its own that only has a loopback. Use, after `load ../helpers/lib`:
# in setup_file `systemd_prepare`, then fill $ROOT, then `systemd_boot`; in teardown_file `systemd_down`. Tests
# reach into it with `inside COMMAND...`, and its network, from outside the container, with `near COMMAND...`.

# SYSTEMD_TREE names the root directory of another Debian to boot in place of this machine's, such as debootstrap(8)
# makes: with systemd-sysv, dbus, procps, iproute2, libnss-systemd, libssl3 and python3-minimal.

# systemd_prepare: install into $ROOT/usr/local; $ROOT/etc-spipe becomes /etc/spipe, $ROOT/spipetab
# /etc/spipetab, $ROOT/units /etc/systemd/system, $ROOT/shared /srv. Sets CANNOT where it cannot be done.
systemd_prepare() {
	local program
	export BATS_NO_PARALLELIZE_WITHIN_FILE=true # one machine for all tests of a file
	# bats 1.8 cannot skip in setup_file: setup does, for each test
	[ -x "$BUILD/spipe-generator" ] || export CANNOT='built without systemd'
	[ "$(id -u)" -eq 0 ] || export CANNOT='needs root'
	[ -e /sys/fs/cgroup/cgroup.procs ] || [ -d /sys/fs/cgroup/systemd ] || export CANNOT='needs control groups'
	for program in systemd-nspawn nsenter unshare ip; do
		command -v "$program" >/dev/null || export CANNOT="needs $program"
	done
	[ -z "${CANNOT:-}" ] || return 0
	# Not below TMPDIR: the path of a UNIX socket must be short.
	ROOT=$(mktemp -d /tmp/spipe-systemd.XXXXXX)
	export ROOT
	mkdir -p "$ROOT"/{etc-spipe,units/sockets.target.wants,shared}
	chmod 755 "$ROOT" "$ROOT/shared"
	# -o: other tests are using these programs, so nothing is rebuilt, whatever they were built with
	make -s -C "$TESTS/.." install BUILD="$BUILD" DESTDIR="$ROOT" PREFIX=/usr/local -o "$BUILD/spipe-enc" \
		-o "$BUILD/spipe-dec" -o "$BUILD/spipe-generator" -o "$BUILD/spipectl" >"$ROOT/install.log" 2>&1 || {
		cat "$ROOT/install.log"
		return 1
	}
	echo '127.0.0.1 localhost far.example.net' >"$ROOT/hosts"
	echo 'hosts: files' >"$ROOT/nsswitch.conf"
	: >"$ROOT/spipetab"
	printf '[Unit]\nRequires=sockets.target\nAfter=sockets.target\n' >"$ROOT/units/test.target"
	ln -s /dev/null "$ROOT/units/systemd-firstboot.service"
	# The programs of a counted build (tests/tools/coverage) run as services cannot write their counts; spipectl can.
	COUNTED=
	if grep -q __gcov_dump "$DEC"; then
		COUNTED=--bind=$BUILD
		mkdir "$ROOT/units/spipe-.service.d"
		printf '[Service]\nEnvironment=GCOV_ERROR_FILE=/dev/null\n' >"$ROOT/units/spipe-.service.d/99-counted.conf"
	fi
	export COUNTED
}

# network_up [PROGRAM...]: a network that only has a loopback, for tests with fixed ports. Sets CANNOT, and does nothing
# more, where it cannot be had or one of these programs is not there. network_down: the end of it.
# shellcheck disable=SC2120 # who names programs is in other files
network_up() {
	local program
	[ "$(id -u)" -eq 0 ] || export CANNOT='needs root'
	for program in nsenter unshare ip "$@"; do
		command -v "$program" >/dev/null || export CANNOT="needs $program"
	done
	# This fails, too, in a chroot that is not a mount point.
	[ -n "${CANNOT:-}" ] || unshare --net --mount true 2>/dev/null || export CANNOT='no network and mounts of its own here'
	[ -z "${CANNOT:-}" ] || return 0
	unshare --net --mount sleep infinity 3>&- 4>&- &
	NETWORK=$!
	disown
	export NETWORK
	eventually 5 has_network
	near ip link set lo up
}

network_down() {
	[ -z "${NETWORK:-}" ] || kill -KILL "$NETWORK"
}

# systemd_boot: start it, and wait until its sockets listen.
systemd_boot() {
	network_up
	[ -z "${CANNOT:-}" ] || return 0
	# A control group of its own: two containers in one would share, and stop, each other's units.
	local own=()
	GROUP=$(awk '$3 == "cgroup2" { print $2; exit }' /proc/mounts)
	if [ -n "$GROUP" ]; then
		GROUP+=$(sed -n 's/^0:://p' /proc/self/cgroup)/${ROOT##*/}
		mkdir "$GROUP" || return
		# shellcheck disable=SC2016
		own=(sh -c 'echo 0 >"$0/cgroup.procs" && exec "$@"' "$GROUP")
	fi
	export GROUP
	# With cgroup v2 for the limits by address, however this machine has it.
	# ASAN_OPTIONS as in lib.bash, for the programs of a sanitized build.
	SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1 "${own[@]}" nsenter -t "$NETWORK" -n -m systemd-nspawn -q --register=no \
		--keep-unit -D "${SYSTEMD_TREE:-/}" --volatile=yes --console=pipe --bind-ro="$ROOT/usr/local:/usr/local" \
		--bind-ro="$ROOT/units:/etc/systemd/system" --bind="$ROOT/etc-spipe:/etc/spipe" \
		--bind-ro="$ROOT/spipetab:/etc/spipetab" --bind-ro="$ROOT/hosts:/etc/hosts" \
		--bind-ro="$ROOT/nsswitch.conf:/etc/nsswitch.conf" --bind="$ROOT/shared:/srv" \
		--bind-ro=/etc/alternatives ${COUNTED:+"$COUNTED"} --system-call-filter=bpf -b systemd.unit=test.target systemd.firstboot=no \
		systemd.setenv=ASAN_OPTIONS=detect_leaks=0:disable_coredump=0 </dev/null >"$ROOT/boot.log" 2>&1 3>&- 4>&- &
	NSPAWN=$!
	disown
	export NSPAWN
	eventually 30 is_up_or_gone || true
	if ! is_up; then
		cat "$ROOT/boot.log"
		if [ -z "$(init_pid)" ]; then
			systemd_down
			export CANNOT="systemd-nspawn does not boot here"
			return 0
		fi
		return 1
	fi
	INIT=$(init_pid)
	export INIT
}

init_pid() {
	pgrep -x -P "$NSPAWN" systemd
}

has_network() {
	[ "$(readlink "/proc/$NETWORK/ns/net")" != "$(readlink /proc/self/ns/net)" ]
}

is_up() {
	INIT=$(init_pid) && inside systemctl is-active -q test.target
} 2>/dev/null

is_up_or_gone() {
	is_up || not alive "$NSPAWN"
}

systemd_down() {
	local pid group
	[ -n "${ROOT:-}" ] || return 0
	for pid in "$(init_pid)" "${NSPAWN:-}" "${NETWORK:-}"; do
		[ -z "$pid" ] || kill -KILL "$pid" 2>/dev/null || true
		[ -z "$pid" ] || gone_within 5 "$pid" || true
	done
	# nspawn makes one of the second kind where control groups are version 1, and leaves it
	for group in "${GROUP:-/nonexistent}" "/sys/fs/cgroup/systemd/${ROOT##*/}"; do
		[ ! -d "$group" ] || find "$group" -depth -type d -exec rmdir {} + || true
	done
	rm -rf --one-file-system "$ROOT" # debootstrap may have left its mounts
}

# inside COMMAND...: run it in the container.
inside() {
	nsenter -t "$INIT" -m -p -u -i -n -C -r -w -- "$@"
}

# near COMMAND...: run it outside the container, in its network.
near() {
	nsenter -t "$NETWORK" -n -m --wdns="$PWD" -- "$@"
}

# near_background COMMAND...: `background`, in that network.
near_background() {
	background nsenter -t "$NETWORK" -n -m --wdns="$PWD" -- "$@"
}

# listens PORT: somebody listens on this port, in that network.
listens() {
	[ -n "$(near ss -Hltn "sport = :$1")" ]
}

# new_keys FILE...: keys in etc-spipe, below $ROOT.
new_keys() {
	local key
	for key; do
		head -c 32 /dev/urandom >"$ROOT/etc-spipe/$key"
		chmod 600 "$ROOT/etc-spipe/$key"
	done
}

# systemd_teardown: what teardown() does; when the test has failed, it shows the last lines of the journal.
systemd_teardown() {
	[ -z "${CANNOT:-}" ] || return 0
	[ -n "${BATS_TEST_COMPLETED:-}" ] || inside journalctl -q --no-pager -n 30
	teardown_test
}

# journal UNIT [FIELD=VALUE...]: the journal of all units that match, as lines of JSON.
journal() {
	local unit=$1
	shift
	inside journalctl --sync
	inside journalctl -q --no-pager -o json -u "$unit" "$@"
}
