#!/usr/bin/env bats
# shellcheck shell=bash disable=SC2154,SC2119
# The rules of a key: NAME.conf beside the key NAME.
load ../helpers/lib

HOLDER=$TESTS/helpers/holder.py

# rules LINE...: the rules of ./key.
rules() {
	printf '%s\n' "$@" >key.conf
}

server_options=()

# holder OPTION...: run spipe-dec with ./key for a holder of it; OPTIONs are holder.py's.
# shellcheck disable=SC2119,SC2120
holder() {
	"$HOLDER" "$@" key "$DEC" "${server_options[@]}" --verbose -k key -- sh -c 'echo ran'
}

# allowed OPTION...
allowed() {
	run -0 --separate-stderr holder "$@"
	[ "${lines[-1]}" = ran ]
}

# refused WHY OPTION...: 77, a line that says why, the key's name in the record, no command, and to the
# peer the 32 bytes of the nonce that every stranger gets.
refused() {
	local why=$1
	shift
	run -77 --separate-stderr holder "$@"
	[ "${lines[-1]}" = 'got 32' ]
	[ "${#stderr_lines[@]}" -eq 2 ]
	[[ ${stderr_lines[0]} == 'spipe-dec: '* ]]
	grep -qE -e "$why" <<<"${stderr_lines[0]}"
	[[ ${stderr_lines[1]} == 'spipe-dec: '*' key key: 0 bytes in, 0 bytes out, '*"${stderr_lines[0]#spipe-dec: }"* ]]
}

# bad NUMBER LINE...: the key is refused as bad, with the number of the line that is wrong.
bad() {
	local number=$1
	shift
	rules "$@"
	run -78 --separate-stderr "$DEC" -k key -- cat </dev/null
	[ -z "$output" ]
	[ "${#stderr_lines[@]}" -eq 1 ]
	if ! grep -qE "^spipe-dec: key key: .*key\.conf line $number: " <<<"$stderr"; then
		printf 'line %s of %s: %s\n' "$number" "$*" "$stderr"
		return 1
	fi
}

day() {
	date -u -d "$1" +%Y-%m-%d
}

@test "no rules, or comments and blanks: all is allowed" {
	allowed
	rules '# a comment' '' '   	' '   # another'
	allowed
	printf 'require-pfs' >key.conf # no newline at the end
	allowed
	printf 'require-pfs\r\n# DOS\r\n' >key.conf
	allowed
}

@test "expires: good through that day, UTC" {
	rules "expires $(day tomorrow)"
	allowed
	# today, unless midnight comes between the two
	local today
	today=$(day now)
	rules "expires $today"
	holder >out 2>err || true
	[ "$today" != "$(day now)" ] || grep -qx ran out
	rules "expires $(day yesterday)"
	refused 'expired'
	rules 'expires 1971-01-01'
	refused 'expired'
	rules 'expires 2000-02-29'
	refused 'expired'
	rules 'expires 9999-12-31'
	allowed
}

@test "expires: the day ends at midnight UTC, wherever we are" {
	local zone
	rules "expires $(day yesterday)"
	for zone in UTC0 AAA+23 AAA-23; do
		TZ=$zone refused 'expired'
	done
	rules "expires $(day tomorrow)"
	for zone in UTC0 AAA+23 AAA-23; do
		TZ=$zone allowed
	done
}

# The programs' clock, from a library of ours.
@test "expires: the last second of that day is good, the next one is not" {
	grep -q libcrypto.so "$DEC" || skip 'the programs are linked statically'
	"${CC:-cc}" -D_FILE_OFFSET_BITS=64 -D_TIME_BITS=64 -shared -fPIC -o clock.so -x c - <<-'END'
		#include <stdlib.h>
		#include <time.h>
		time_t time(time_t *now)
		{
			time_t said = atol(getenv("CLOCK"));

			if (now != NULL)
				*now = said;
			return said;
		}
	END
	local end
	end=$(date -u -d 2032-01-01 +%s)
	rules 'expires 2031-12-31'
	export ASAN_OPTIONS=$ASAN_OPTIONS:verify_asan_link_order=0 LD_PRELOAD=$PWD/clock.so
	CLOCK=$((end - 1)) allowed
	CLOCK=$end refused 'expired'
}

@test "require-pfs: refuses a holder without forward secrecy, and no other" {
	rules 'require-pfs'
	allowed
	refused 'forward secrecy' -f
	rules '# nothing'
	allowed -f
	# upstream's client, with its own way to say so
	rules 'require-pfs'
	listen dec "$DEC" -k key -- cat
	[ -z "$(echo hello | timeout -s KILL 10 spipe -f -t "127.0.0.1:$port" -k key 2>/dev/null)" ]
	[ "$(echo hello | timeout -s KILL 10 spipe -t "127.0.0.1:$port" -k key)" = hello ]
	statuses dec 5 77 0
}

@test "require-pfs: refuses every holder when spipe-dec itself forgoes forward secrecy" {
	rules 'require-pfs'
	server_options=(-f)
	refused 'forward secrecy'
	refused 'forward secrecy' -f
	rules '# nothing'
	allowed
}

@test "from: IPv4 networks" {
	local networks
	for networks in 127.0.0.2 127.0.0.2/32 127.0.0.0/8 127.0.0.3/31 0.0.0.0/0 '10.0.0.0/8 127.0.0.0/29' 127.1.2.3/8 \
		'::1 127.0.0.2'; do
		rules "from $networks"
		allowed
	done
	for networks in 127.0.0.3 127.0.0.0/31 127.0.0.4/30 128.0.0.0/1 '10.0.0.0/8 192.168.0.0/16' ::/0 ::1 '::7f00:2/96'; do
		rules "from $networks"
		refused 'not allowed from 127\.0\.0\.2'
	done
	# several lines add up
	rules 'from 10.0.0.0/8' 'from 127.0.0.2'
	allowed
}

@test "from: IPv6 networks" {
	local networks
	for networks in ::1 ::1/128 ::/0 ::/127 0::0/64 '10.0.0.0/8 ::/96'; do
		rules "from $networks"
		allowed -6
	done
	for networks in ::2 ::2/127 8000::/1 2001:db8::/32 0.0.0.0/0; do
		rules "from $networks"
		refused 'not allowed from ::1' -6
	done
}

@test "from: a client without a known address is refused; the one that a supervisor gives counts" {
	rules 'from 0.0.0.0/0 ::/0'
	refused 'not allowed from an unknown address' -s
	refused 'not allowed from ' -u
	rules 'from 192.0.2.0/24'
	REMOTE_ADDR=192.0.2.9 allowed -s
	REMOTE_ADDR=192.0.3.9 refused 'not allowed from 192\.0\.3\.9' -s
	# but not over what the socket says
	REMOTE_ADDR=192.0.2.9 refused 'not allowed from 127\.0\.0\.2'
}

@test "command: another one for this key, split at blanks, with no shell and no quoting" {
	# shellcheck disable=SC2016
	rules 'command  printf	%s\n "a  b"   $HOME  *  '
	run -0 --separate-stderr holder
	diff <(printf '%s\n' '"a' 'b"' "\$HOME" '*') <(tail -n +3 <<<"$output")
	# it has the same environment
	rules 'command env'
	run -0 --separate-stderr holder
	grep -qx 'SPIPE_KEY=key' <<<"$output"
	grep -qx 'SPIPE_PEER_ADDR=127.0.0.2' <<<"$output"
}

@test "command: each key its own, and the usual one for the others" {
	mkdir k
	local name
	for name in alice bob carol; do
		random 32 k/$name
	done
	echo 'command echo backend one' >k/alice.conf
	echo 'command echo backend two' >k/bob.conf
	listen dec "$DEC" -K k -- echo the usual
	[ "$(spipe -t "127.0.0.1:$port" -k k/alice </dev/null)" = 'backend one' ]
	[ "$(spipe -t "127.0.0.1:$port" -k k/bob </dev/null)" = 'backend two' ]
	[ "$(spipe -t "127.0.0.1:$port" -k k/carol </dev/null)" = 'the usual' ]
	statuses dec 5 0 0 0
}

@test "target: each key can have its own, instead of the usual command or target" {
	mkdir k
	local name
	for name in alice bob carol; do
		random 32 k/$name
	done
	listen one echo backend one
	local one=127.0.0.1:$port
	echo "target $one" >k/alice.conf
	listen -u two echo backend two
	echo "target $PWD/two.sock" >k/bob.conf
	for name in '-- echo the usual' "-t $one"; do
		# shellcheck disable=SC2086
		listen dec "$DEC" -K k $name
		[ "$(spipe -t "127.0.0.1:$port" -k k/alice </dev/null)" = 'backend one' ]
		[ "$(spipe -t "127.0.0.1:$port" -k k/bob </dev/null)" = 'backend two' ]
	done
	listen dec "$DEC" -K k -- echo the usual
	[ "$(spipe -t "127.0.0.1:$port" -k k/carol </dev/null)" = 'the usual' ]
}

@test "command: one that cannot be run or fails is named" {
	rules 'command ./no-such-program argument'
	run -69 --separate-stderr holder
	[ "${lines[-1]}" = 'got 320' ]
	grep -q 'no-such-program' <<<"${stderr_lines[0]}"
	rules 'command false'
	run -69 --separate-stderr holder
	grep -q 'command false' <<<"${stderr_lines[0]}"
}

@test "command: it is not ignored when spipe-dec has no command itself" {
	# The far side is descriptors 6 and 7, which the rule would have replaced.
	rules 'command echo from the rule'
	run --separate-stderr "$HOLDER" key bash -c '"$@" 6</dev/null 7>far' - "$DEC" -k key
	[ ! -s far ]
	case $status in
	0) grep -qx 'from the rule' <<<"$output" ;;
	*)
		[ "${lines[-1]}" = 'got 32' ] || [ "$status" -eq 78 ]
		grep -q command <<<"$stderr"
		;;
	esac
}

@test "all rules at once: each of them counts" {
	local good=("expires $(day tomorrow)" 'require-pfs' 'from 127.0.0.2' 'command echo ran')
	rules "${good[@]}"
	allowed
	refused 'forward secrecy' -f
	rules "expires $(day yesterday)" "${good[@]:1}"
	refused 'expired'
	rules "${good[@]:0:2}" 'from 127.0.0.1' "${good[3]}"
	refused 'not allowed from'
	# in any order
	rules "${good[3]}" "${good[2]}" "${good[1]}" "${good[0]}"
	allowed
}

@test "not understood: an unknown rule, in any place" {
	bad 1 'expire 2030-01-01'
	bad 3 'require-pfs' '' 'allow all'
	bad 2 '# comment' 'Require-PFS'
	bad 1 'require-pfs;'
	bad 1 'expires=2030-01-01'
	bad 2 'require-pfs' $'\x01'
	bad 1 'require_pfs'
	bad 1 $'\xef\xbb\xbfrequire-pfs'
}

@test "not understood: expires" {
	local date
	for date in '' never 2030 2030-01 2030-1-1 2030-01-1 30-01-01 2030/01/01 01-01-2030 2030-00-01 2030-13-01 2030-01-00 \
		2030-01-32 2030-02-29 2030-04-31 2030-01-011 20300-01-01 02030-01-01 2030-01-01T00:00 +030-01-01 -030-01-01 \
		2030-+1-01 2030-01-+1 2030--1-01 2030-01--1 0x30-01-01 1900-01-01 1969-12-31; do
		bad 1 "expires $date"
	done
	bad 1 'expires 2030-01-01 12:00'
	bad 1 'expires 2030-01-01 # a comment'
	bad 1 'expires 2030- 1-01'
	bad 2 'expires 2030-01-01' 'expires 2031-01-01'
}

@test "not understood: target" {
	bad 1 'target'
	bad 1 'target 127.0.0.1'
	bad 1 'target 127.0.0.1:0'
	bad 1 'target ::1:25'
	bad 1 'target relative/path'
	bad 1 'target vsock:2'
	bad 1 'target 127.0.0.1:25 127.0.0.1:26'
	bad 2 'target 127.0.0.1:25' 'target 127.0.0.1:25'
	bad 2 'target 127.0.0.1:25' 'command cat'
	bad 2 'command cat' 'target 127.0.0.1:25'
}

@test "not understood: require-pfs" {
	bad 1 'require-pfs yes'
	bad 1 'require-pfs no'
	bad 1 'require-pfs # always'
}

@test "not understood: from" {
	local network
	for network in '' localhost 127.0.0 127.0.0.1.1 127.0.0.256 127.0.0.1/33 127.0.0.1/ 127.0.0.1/-1 127.0.0.1/+8 127.0.0.1/8x \
		127.0.0.1/255.0.0.0 /8 ::1/129 ::g 1::2::3 127.0.0.1,10.0.0.1 '127.0.0.1 # home' '10.0.0.0/8 all' \!10.0.0.1 \
		127.0.0.1/8/8 127.0.0.1/99999999999999999999 fe80::1%lo 0127.0.0.1 ::ffff:10.0.0.0/104; do
		bad 1 "from $network"
	done
	# more networks than there is room for
	bad 1 "from $(printf '10.0.0.%s ' $(seq 1 200))"
}

@test "not understood: command" {
	bad 1 'command'
	bad 1 'command   '
	bad 2 'command true' 'command false'
	bad 1 "command $(printf 'x %.0s' $(seq 1 200))"
}

@test "not understood: an empty file, or one of blanks" {
	for text in '' '\n' ' \t\r\n\n'; do
		# shellcheck disable=SC2059
		printf "$text" >key.conf
		run -78 --separate-stderr "$DEC" -k key -- cat </dev/null
		echo "$stderr" >dec.err
		one_line dec.err spipe-dec 'key key: its rules, key.conf: empty'
	done
}

@test "rules that seem meant for a key, but are not its rules, are warned about" {
	rules 'require-pfs'
	mkdir k
	cp key real.key
	rm key
	# alice.conf beside alice.key
	cp real.key alice.key
	mv key.conf alice.conf
	run -0 --separate-stderr "$HOLDER" alice.key "$DEC" -k ./alice.key -- true
	[ "$stderr" = 'spipe-dec: rules ./alice.conf are not used: those of key ./alice.key would be ./alice.key.conf' ]
	# but not if they are those of another key
	cp real.key alice
	run -0 --separate-stderr "$HOLDER" alice.key "$DEC" -k ./alice.key -- true
	[ -z "$stderr" ]
	# rules beside the file that a link leads to
	echo 'require-pfs' >real.key.conf
	ln -s real.key link
	ln -s ../link k/link
	local warning="rules $PWD/real.key.conf are not used: key link is a link, and its rules would be link.conf"
	run -0 --separate-stderr "$HOLDER" real.key "$DEC" -k link -- true
	[ "$stderr" = "spipe-dec: $warning" ]
	run -0 --separate-stderr "$HOLDER" real.key "$DEC" -K k -- true
	[ "$stderr" = "spipe-dec: $warning" ]
	echo 'require-pfs' >link.conf
	run -0 --separate-stderr "$HOLDER" real.key "$DEC" -k link -- true
	[ -z "$stderr" ]
}

@test "not understood: what is not text, too long or unreadable" {
	printf 'require-pfs\0\n' >key.conf
	run -78 --separate-stderr "$DEC" -k key -- cat </dev/null
	[[ $stderr == 'spipe-dec: key key: '*key.conf* ]]
	head -c 100000 /dev/zero | tr '\0' '#' >key.conf
	run -78 --separate-stderr "$DEC" -k key -- cat </dev/null
	[[ $stderr == 'spipe-dec: key key: '*key.conf* ]]
	rm key.conf
	mkdir key.conf
	run -78 --separate-stderr "$DEC" -k key -- cat </dev/null
	[[ $stderr == 'spipe-dec: key key: '*key.conf* ]]
	rmdir key.conf
	ln -s nowhere/at/all key.conf
	run -78 --separate-stderr "$DEC" -k key -- cat </dev/null
	[[ $stderr == 'spipe-dec: key key: '*key.conf* ]]
}

@test "a key with bad rules is skipped in a directory, the others are used" {
	mkdir k
	random 32 k/alice
	random 32 k/bob
	echo 'require-tls' >k/bob.conf
	listen dec "$DEC" -K k -- echo ran
	[ -z "$(spipe -t "127.0.0.1:$port" -k k/bob </dev/null 2>/dev/null)" ]
	[ "$(spipe -t "127.0.0.1:$port" -k k/alice </dev/null)" = ran ]
	statuses dec 5 77 0
	[ "$(grep -c 'key bob is skipped: .*bob.conf line 1: ' dec.err)" = 1 ]
}

@test "a changed rule counts from the next connection on" {
	listen dec "$DEC" -k key -- echo ran
	[ "$(spipe -t "127.0.0.1:$port" -k key </dev/null)" = ran ]
	rules "expires $(day yesterday)"
	[ -z "$(spipe -t "127.0.0.1:$port" -k key </dev/null 2>/dev/null)" ]
	rm key.conf
	[ "$(spipe -t "127.0.0.1:$port" -k key </dev/null)" = ran ]
	statuses dec 5 0 77 0
}

@test "spipe-enc ignores rules" {
	listen dec "$DEC" -k ./key -- echo ran
	mkdir client
	cp key client/key
	echo 'nonsense' >client/key.conf
	[ "$("$ENC" -k client/key -- nc -N 127.0.0.1 "$port" </dev/null)" = ran ]
	statuses dec 5 0
}

@test "rules in anything but a regular file are refused at once" {
	for what in mkfifo mkdir; do
		rm -rf key.conf
		$what key.conf
		run -78 --separate-stderr timeout -s KILL 5 "$DEC" -k key -- cat </dev/null
		echo "$stderr" >dec.err
		one_line dec.err spipe-dec 'its rules, key.conf: (not a regular file|Is a directory)'
	done
}

@test "a key with a name that leaves no room for .conf has no rules" {
	local long
	long=$(printf 'k%.0s' {1..255})
	cp key "$long"
	run -77 --separate-stderr "$DEC" -k "$long" -- cat </dev/null
}
