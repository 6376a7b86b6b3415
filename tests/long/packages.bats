#!/usr/bin/env bats
# shellcheck disable=SC2154
# The Debian packages: built twice, checked by lintian and autopkgtest, and installed, upgraded under a live connection,
# removed and purged under a real systemd, in a Debian that has never seen them. SYSTEMD_TREE names the root directory of such a
# Debian; without it, debootstrap(8) makes one. What has not been committed is not in the packages.
load ../helpers/lib
load ../helpers/systemd

setup_file() {
	local program suite
	export BATS_NO_PARALLELIZE_WITHIN_FILE=true # one machine for all tests of the file
	for program in debootstrap dh dpkg-buildpackage lintian git systemd-nspawn; do
		command -v "$program" >/dev/null || export CANNOT="needs $program"
	done
	[ "$(id -u)" -eq 0 ] || export CANNOT='needs root'
	[ -z "${CANNOT:-}" ] || return 0
	ROOT=$(mktemp -d /tmp/spipe-packages.XXXXXX)
	export ROOT
	if [ -z "${SYSTEMD_TREE:-}" ]; then
		suite=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
		debootstrap --variant=minbase --include=systemd-sysv,dbus,openssl "$suite" "$ROOT/tree" >"$ROOT/debootstrap.log"
		export SYSTEMD_TREE=$ROOT/tree
	fi
	(unset BUILD && make -s -C "$TESTS/.." deb BUILD="$ROOT/one" >"$ROOT/deb.log" 2>&1) || {
		tail -n 20 "$ROOT/deb.log"
		return 1
	}
	network_up
	[ -z "${CANNOT:-}" ] || return 0
	# Whatever is there to start: installing the packages must not add to it.
	nsenter -t "$NETWORK" -n -m systemd-nspawn -q --register=no --keep-unit -D "$SYSTEMD_TREE" --volatile=overlay \
		--console=pipe --bind-ro="$ROOT/one/deb:/srv" --system-call-filter=bpf -b systemd.unit=multi-user.target \
		systemd.firstboot=no </dev/null >"$ROOT/boot.log" 2>&1 3>&- 4>&- &
	NSPAWN=$!
	disown
	export NSPAWN
	eventually 60 booted || {
		cat "$ROOT/boot.log"
		return 1
	}
	export INIT
}

teardown_file() { systemd_down; }

booted() {
	INIT=$(init_pid) && inside systemctl is-active -q multi-user.target
} 2>/dev/null

# units: ours that run or wait, one per line.
units() {
	inside systemctl list-units --plain --no-legend --state=active,activating,failed '*spipe*' | cut -d ' ' -f 1
}

accepts() { # PORT
	[ -n "$(near ss -Htln "sport = :$1")" ]
}

two_services() {
	[ "$(units | grep -c '^spipe-echo@')" -eq 2 ]
}

has_line() { # FILE LINE
	grep -qx "$2" "$1"
}

@test "packages: built in two directories, they are the same" {
	(unset BUILD && make -s -C "$TESTS/.." deb BUILD="$PWD/a/longer/path" >deb.log 2>&1)
	local file
	for file in "$ROOT"/one/deb/*.deb "$ROOT"/one/deb/*.dsc "$ROOT"/one/deb/*.tar.*; do
		cmp "$file" "a/longer/path/deb/${file##*/}"
	done
	[ -e "$file" ]
}

@test "packages: lintian finds nothing" {
	lintian --allow-root --fail-on info,warning,error "$ROOT"/one/deb/*.changes
}

@test "packages: what autopkgtest(1) runs of them passes, in a Debian that has nothing else" {
	command -v autopkgtest >/dev/null || skip 'needs autopkgtest'
	cp -a "$SYSTEMD_TREE" clean
	# shellcheck disable=SC2016
	unshare --mount --pid --fork --kill-child sh -c 'mount -t proc proc clean/proc && mount --rbind /dev clean/dev &&
		exec env -u TMPDIR autopkgtest -B --setup-commands "apt-get update" "$@" -- chroot "$PWD/clean"' - \
		"$ROOT"/one/deb/*.dsc "$ROOT"/one/deb/spipe-filters_*.deb >autopkgtest.err 2>&1
	grep -q '^interop  *PASS$' autopkgtest.err
}

@test "packages: installing starts and enables nothing" {
	inside sh -c 'exec dpkg -i /srv/spipe-filters_*.deb' >/dev/null
	[ -z "$(units)" ]
	[ -z "$(inside systemctl list-unit-files --no-legend --state=enabled,enabled-runtime '*spipe*')" ]
	[ "$(inside stat -c '%a %U' /etc/spipe)" = '700 root' ]
	inside test -x /usr/lib/systemd/system-generators/spipe-generator
	[ "$(inside systemctl show -P LoadState spipe-dec.socket)" = loaded ]
	[[ $(inside spipe-dec --version) == 'spipe-dec '* ]]
}

@test "packages: an upgrade leaves a live connection alone, and new ones get the new program" {
	inside spipectl key new /etc/spipe/echo.key >/dev/null
	inside cat /etc/spipe/echo.key >echo.key
	inside sh -c 'echo "echo dec 127.0.0.1:8025 exec:/bin/cat echo.key" >/etc/spipetab'
	inside systemctl daemon-reload
	inside systemctl start sockets.target
	mkfifo in
	near_background "$ENC" -k echo.key -t 127.0.0.1:8025 <>in >out 2>enc.err
	echo one >in
	eventually 10 has_line out one
	# the same package as a later version
	dpkg-deb -R "$ROOT"/one/deb/spipe-filters_*.deb later
	sed -i 's/^Version: .*/&.later/' later/DEBIAN/control
	printf '\n' >>later/usr/bin/spipe-dec
	dpkg-deb -b later "$ROOT/one/deb/later.deb" >/dev/null
	inside dpkg -i /srv/later.deb >/dev/null
	eventually 10 two_services
	echo two >in
	eventually 10 has_line out two
	[ "$(echo three | near timeout 10 "$ENC" -k echo.key -t 127.0.0.1:8025)" = three ]
	local pid new=0 old=0
	for pid in $(inside systemctl show -P MainPID 'spipe-echo@*.service'); do
		case $(inside readlink "/proc/$pid/exe") in
		*' (deleted)' | *.dpkg-tmp) old=$((old + 1)) ;;
		*/spipe-dec) new=$((new + 1)) ;;
		esac
	done
	[ "$old $new" = '1 1' ]
	kill "$!"
}

@test "packages: removing closes every tunnel, and keeps table and keys" {
	accepts 8025
	inside dpkg -r spipe-filters >/dev/null
	[ -z "$(units)" ]
	not accepts 8025
	[ "$(inside systemctl show -P LoadState spipe-dec.socket)" = not-found ]
	inside test -e /etc/spipetab
	inside test -e /etc/spipe/echo.key
}

@test "packages: purging leaves nothing but table and keys" {
	inside dpkg -P spipe-filters >/dev/null
	[ -z "$(inside find / -xdev -name '*spipe*' -not -path '/proc/*' -not -path '/sys/*' -not -path '/srv/*' -not -path '/var/log/*' |
		grep -vx -e /etc/spipetab -e /etc/spipe)" ]
	inside test -s /etc/spipe/echo.key
}
