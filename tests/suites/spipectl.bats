#!/usr/bin/env bats
# spipectl, as far as it needs no service manager.
# shellcheck disable=SC2120,SC2154 # bats: $stderr and the like

load ../helpers/lib

setup() {
	setup_test
	CTL=$BUILD/spipectl
	[ -x "$CTL" ] || skip 'built without systemd'
}

# fingerprint FILE: what the manual page says of it.
fingerprint() {
	/usr/bin/python3 - "$1" <<-'EOF'
		import hashlib, hmac, sys
		key = hashlib.sha256(open(sys.argv[1], "rb").read()).digest()
		mac = hmac.new(key, b"spipe key id", hashlib.sha256).digest()
		digits = "%012d" % (int.from_bytes(mac[:8], "big") % 10**12)
		print("-".join(digits[i:i + 3] for i in range(0, 12, 3)))
	EOF
}

@test "key new: 32 bytes for the owner only, in a directory for the owner only" {
	umask 0
	run -0 "$CTL" key new new/mail.key
	[ "$output" = "$(fingerprint new/mail.key)  new/mail.key" ]
	[ "$(stat -c '%a %s' new/mail.key)" = '600 32' ]
	[ "$(stat -c %a new)" = 700 ]
	run -0 "$CTL" key new second.key
	not cmp -s second.key new/mail.key
	# both programs take it
	listen server "$DEC" -k new/mail.key cat
	[ "$("$ENC" -k new/mail.key -t "127.0.0.1:$port" <<<hello)" = hello ]
}

@test "key new: an existing file is not replaced, a misspelt path not made" {
	cp key before
	run -73 "$CTL" key new key
	[ "$output" = 'spipectl: cannot make key: File exists' ]
	cmp key before
	ln -s elsewhere link
	run -73 "$CTL" key new link
	[ ! -e elsewhere ]
	run -73 "$CTL" key new a/b/c
	[ ! -e a ]
}

@test "key new: a file that cannot be written to its end is removed" {
	mkdir full
	mount_tmpfs() { mount -t tmpfs -o size=4k,nr_inodes=3 none full && head -c 4096 /dev/zero >full/filler; }
	export -f mount_tmpfs
	[ "$(id -u)" -eq 0 ] && unshare --mount true 2>/dev/null || skip 'needs root and mounts of its own'
	# shellcheck disable=SC2016
	run -74 unshare --mount bash -c 'mount_tmpfs && "$0" key new full/key; status=$?; ls full; exit $status' "$CTL"
	[ "$output" = "$(printf '%s\n' 'spipectl: cannot write full/key: No space left on device' filler)" ]
}

@test "key id: the fingerprint that the manual page describes, for every file" {
	# the known answer, so that no release changes it
	printf 'not a secret, but 32 bytes long.' >known
	random 100000 long
	run -0 "$CTL" key id known key long
	[ "${lines[0]}" = '788-010-162-657  known' ]
	[ "${lines[1]}" = "$(fingerprint key)  key" ]
	[ "${lines[2]}" = "$(fingerprint long)  long" ]
}

@test "key id: what is wrong with a key" {
	chmod 644 key
	run -0 --separate-stderr "$CTL" key id key
	[ "$stderr" = 'spipectl: key key: readable by everyone, chmod 600 it' ]
	head -c 31 key >short
	run -78 --separate-stderr "$CTL" key id short absent other
	[ "$output" = "$(fingerprint other)  other" ]
	[ "${stderr_lines[0]}" = 'spipectl: key short: it is shorter than 32 bytes' ]
	[ "${stderr_lines[1]}" = 'spipectl: key absent: No such file or directory' ]
}

@test "usage errors, --help, --version, and an output that fails" {
	local words
	for words in '' key 'key new' 'key new a b' 'key new -x' 'key id' 'key id -x' 'key old a' nonsense -x; do
		# shellcheck disable=SC2086
		run -64 --separate-stderr "$CTL" $words
		[ -z "$output" ]
		one_line <(echo "$stderr") spipectl 'see --help$'
	done
	run -0 "$CTL" --help
	[[ $output == usage:* ]]
	[ "${#lines[@]}" -le 24 ]
	[ "$(wc -L <<<"$output")" -le 80 ]
	run -0 "$CTL" --version
	[[ $output == 'spipectl '* ]]
	run -74 bash -c "'$CTL' key id key >/dev/full"
	[ "$output" = 'spipectl: standard output cannot be written' ]
}

@test "the synopsis is the same in the manual page and in --help" {
	mandoc -Tascii -Owidth=500 "$TESTS/../man/spipectl.8" | sed 's/.\x08//g' |
		sed -n '/^SYNOPSIS/,/^DESCRIPTION/p' | sed -n 's/^ *spipectl //p' >man.lines
	"$CTL" --help | sed -nE 's/^(usage: |       )spipectl //p' >help.lines
	[ -s man.lines ]
	diff man.lines help.lines
}

# check_table [OPTION...]: check ./tab without systemd's own programs; its exit status must be $expected.
check_table() {
	run "-$expected" --separate-stderr env PATH=/nowhere "$CTL" check "$@" tab
	mapfile -t problems < <(grep -vx 'spipectl: tab: warning: the units were not verified: there is no systemd-analyze' \
		<<<"$stderr")
}

@test "check: a table without faults" {
	printf '# a comment\n\nmail dec %s 127.0.0.1:25 %s\n' "$PWD/a.sock" "$PWD/key" >tab
	expected=0 check_table
	[ "$output" = 'tab: tunnels: 1, errors: 0, warnings: 1' ]
	[ -z "${problems[*]}" ]
	[ "${#stderr_lines[@]}" -eq 1 ] # and says what it could not do
	[ -z "$(find . -name 'spipectl.*')" ]
}

@test "check: faults of lines and keys, all of them, with their line" {
	chmod 640 other
	random 31 short
	echo 'expire 2030-01-01' >key.conf
	mkdir -m 700 keys
	cp other keys/a.key
	cp other keys/b.key
	cp key keys/c:d
	chmod 600 keys/*
	echo >keys/c.conf
	cat >tab <<-EOF
		one dec vsock::1 25 $PWD/other maxcon=1
		two dec vsock::2 25 $PWD/key
		three dec vsock::3 25 $PWD/absent key=$PWD/short
		four dec vsock::4 25 $PWD/keys/
		five dec vsock::5 exec:nosuch $PWD/other
		six dec vsock::6 exec:/etc/passwd $PWD/other
		six dec vsock::7 25 $PWD/keys/a.key key=$PWD/keys/b.key
		eight enc vsock::8 25 $PWD/other
		nine enc vsock::9 vsock:1:1 /etc/absent encrypted
	EOF
	expected=65 check_table
	diff <(printf '%s\n' "${problems[@]#spipectl: tab:}" | sed 's/: its rules,.*/: its rules/') - <<-EOF
		1: option maxcon: no such option
		2: key $PWD/key: its rules
		3: key $PWD/absent: No such file or directory
		3: key $PWD/short: it is shorter than 32 bytes
		4: warning: rules c.conf belong to no key: there is no c beside them
		4: warning: key a.key is the same as key b.key: deleting one revokes nothing
		4: $PWD/keys/c:d: a name with a colon keeps the service from starting
		5: warning: key $PWD/other: readable by its group, chmod 600 it
		5: nosuch: no such program
		6: warning: key $PWD/other: readable by its group, chmod 600 it
		6: /etc/passwd: no such program
		7: NAME six is taken: spipe-six@.service already exists
		7: warning: key a.key is the same as key b.key: deleting one revokes nothing
		8: warning: key $PWD/other: readable by its group, chmod 600 it
		9: key /etc/absent: No such file or directory
	EOF
	[ "$output" = 'tab: tunnels: 8, errors: 9, warnings: 7' ]
}

@test "check: an address that is taken, and by whom" {
	listen server sleep 100
	server=$!
	background nc -l -U "$PWD/x.sock"
	nc=$!
	eventually 5 listening "$PWD/x.sock"
	cat >tab <<-EOF
		all dec $port 25 $PWD/key
		unix dec $PWD/x.sock 25 $PWD/key
		new dec $PWD/y.sock 25 $PWD/key
	EOF
	expected=65 check_table
	diff <(printf '%s\n' "${problems[@]#spipectl: tab:}") - <<-EOF
		1: $port is held by $(</proc/$server/comm), pid $server
		2: $PWD/x.sock is held by nc, pid $nc
	EOF
	echo "v4 enc $port 127.0.0.1:25 $PWD/key" >tab
	expected=65 check_table
	[ "${problems[0]}" = "spipectl: tab:1: 127.0.0.1:$port is held by $(</proc/$server/comm), pid $server" ]
	echo "other dec 127.0.0.2:$port 25 $PWD/key" >tab
	expected=0 check_table
	# it has touched nobody's socket
	alive "$server"
}

@test "check --show: the units of one line as the generator writes them" {
	printf 'a dec 8025 25 %s\na-b dec 8026 exec:/bin/cat %s\n' "$PWD/key" "$PWD/key" >tab
	mkdir units
	SPIPETAB=tab run -0 "$BUILD/spipe-generator" units
	run env PATH=/nowhere "$CTL" check --show a-b tab
	diff <(grep -v '^spipectl: ' <<<"$output") <(cd units && find spipe-a-b* -type f | sort | while read -r file; do
		printf '# %s\n' "$file"
		cat "$file"
		echo
	done | sed '$d')
	run -65 --separate-stderr env PATH=/nowhere "$CTL" check --show b tab
	[ -z "$output" ]
	[[ $stderr == *'spipectl: tab: no valid line has the name b' ]]
}

@test "check: systemd-analyze reads the units" {
	[ "$(id -u)" -eq 0 ] && unshare --mount true 2>/dev/null || skip 'needs root and mounts of its own'
	echo "mail dec vsock::1 25 $PWD/key" >tab
	run -65 unshare --mount sh -c 'mount -t tmpfs none /usr/local/bin && exec "$0" check tab' "$CTL"
	[[ ${lines[0]} == 'spipectl: tab: systemd-analyze: '*' /usr/local/bin/spipe-dec '* ]]
}

@test "check: a table that cannot be read, and usage errors" {
	run -66 "$CTL" check absent
	[ "$output" = 'spipectl: absent: No such file or directory' ]
	for words in '--show' 'a b' '-x' '--show a --show b'; do
		# shellcheck disable=SC2086
		run -64 "$CTL" check $words
		[ "$output" = 'spipectl: check takes: [--show NAME] [FILE]; see --help' ]
	done
}

# probed ADDRESS: the output of a probe that went well.
probed() {
	[[ $output =~ ^"$1: "[0-9]+\.[0-9]" ms (connection "[0-9]+\.[0-9]", handshake "[0-9]+\.[0-9]")"$ ]]
}

@test "probe: spipe-dec and spiped answer, with and without forward secrecy" {
	listen target cat
	target=$port
	for option in '' -f -g; do
		# shellcheck disable=SC2086
		listen "server$option" "$DEC" $option --verbose -k key -t "127.0.0.1:$target"
		run -0 "$CTL" probe -k key "127.0.0.1:$port"
		probed "127.0.0.1:$port"
		statuses "server$option" 5 0
		grep -q ' key key: 0 bytes in, 0 bytes out' "server$option.err"
	done
	run -0 "$CTL" probe -o 2.5 -k key "localhost:$port"
	probed "localhost:$port"
	background spiped -d -F -s "$PWD/d.sock" -t "[127.0.0.1]:$target" -k key 2>spiped.err
	eventually 5 listening "$PWD/d.sock"
	run -0 "$CTL" probe -k key "$PWD/d.sock"
	probed "$PWD/d.sock"
}

@test "probe: a target that goes on after our end is no error" {
	listen server "$DEC" -k key -- sh -c 'while echo more; do sleep 0.1; done'
	run -0 "$CTL" probe -k key "127.0.0.1:$port"
	probed "127.0.0.1:$port"
}

@test "probe: statuses of what can go wrong" {
	listen server "$DEC" -k key -- cat
	run -77 "$CTL" probe -k other "127.0.0.1:$port"
	one_line <(echo "$output") spipectl 'probably has a different key'
	listen fast "$DEC" -g -k key -- cat
	listen stranger cat
	run -77 "$CTL" probe -k other "127.0.0.1:$port"
	one_line <(echo "$output") spipectl 'not spiped'
	listen silent sleep 100
	run -75 "$CTL" probe -o .2 -k key "127.0.0.1:$port"
	one_line <(echo "$output") spipectl 'timed out'
	run -78 "$CTL" probe -k absent "127.0.0.1:$port"
	refuse
	refused=$port
	run -69 "$CTL" probe -k key "127.0.0.1:$port"
	[ "$output" = "spipectl: cannot connect to 127.0.0.1:$port: Connection refused" ]
	# the server's target
	listen dead "$DEC" -k key -t "127.0.0.1:$refused"
	run -74 "$CTL" probe -k key "127.0.0.1:$port"
	one_line <(echo "$output") spipectl 'after the handshake: it probably cannot reach its target'
	listen alive "$DEC" -k key -- cat
	run -74 sh -c '"$0" probe -k key "$1" >/dev/full' "$CTL" "127.0.0.1:$port"
}

@test "probe: usage errors" {
	for words in '' a\ b '-x a' '-o 0 localhost:1' 'localhost:1' '-k key nonsense:'; do
		# shellcheck disable=SC2086
		run -64 "$CTL" probe $words
		one_line <(echo "$output") spipectl
	done
}
