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
	[ "$stderr" = 'spipectl: warning: key key: readable by everyone, chmod 600 it' ]
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
		sed -n '/^SYNOPSIS/,/^DESCRIPTION/p' | sed -n 's/^ *spipectl //p' | tr A-Z a-z >man.lines
	"$CTL" --help | sed -nE 's/^  ([a-z])/\1/p' | sed 's/    .*//' | tr A-Z a-z >help.lines
	[ -s man.lines ]
	diff man.lines help.lines
}

# check_table [OPTION...]: check ./tab without systemd's own programs; its exit status must be $expected.
check_table() {
	run "-$expected" --separate-stderr env PATH=/nowhere "$CTL" check "$@" tab
	mapfile -t problems < <(grep -vx -e 'spipectl: tab: warning: the units were not verified: there is no systemd-analyze' \
		-e 'spipectl: tab: warning: run as root to check that the addresses are free' <<<"$stderr")
}

@test "check: a table without faults" {
	printf '# a comment\n\nmail dec %s 127.0.0.1:25 %s\n' "$PWD/a.sock" "$PWD/key" >tab
	expected=0 check_table
	unchecked=$((1 + (EUID != 0)))
	[ "$output" = "tab: tunnels: 1, errors: 0, warnings: $unchecked" ]
	[ -z "${problems[*]}" ]
	[ "${#stderr_lines[@]}" -eq $unchecked ] # and says what it could not do
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
		six dec vsock::7 25 $PWD/keys/a.key
		seven dec vsock::7 25 $PWD/keys/a.key key=$PWD/keys/b.key
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
		4: $PWD/keys/c:d: a name that is too long, or not plain ASCII without a colon, keeps the service from starting
		5: warning: key $PWD/other: readable by its group, chmod 600 it
		5: nosuch: no such program
		6: warning: key $PWD/other: readable by its group, chmod 600 it
		6: /etc/passwd: no such program
		7: NAME six is taken by line 6
		8: warning: key a.key is the same as key b.key: deleting one revokes nothing
		9: warning: key $PWD/other: readable by its group, chmod 600 it
		10: key /etc/absent: No such file or directory
	EOF
	[ "$output" = "tab: tunnels: 8, errors: 9, warnings: $((7 + (EUID != 0)))" ]
}

@test "check: keys that everyone may read, as the service accepts them, and programs that rules name" {
	mkdir -m 700 keys
	cp key keys/alice
	cp other keys/bob
	chmod 644 keys/alice
	chmod 600 keys/bob
	echo 'command nosuch -x' >keys/bob.conf
	echo 'command cat /etc/passwd' >keys/alice.conf
	echo "clients dec vsock::1 25 $PWD/keys/" >tab
	expected=65 check_table
	diff <(printf '%s\n' "${problems[@]#spipectl: tab:}") - <<-EOF
		1: warning: key alice: readable by everyone, chmod 600 it
		1: nosuch: no such program
	EOF
	cp keys/bob.conf key.conf
	echo "one dec vsock::1 25 $PWD/key" >tab
	expected=65 check_table
	[ "${problems[*]}" = 'spipectl: tab:1: nosuch: no such program' ]
}

@test "check: accounts that do not exist" {
	cat >tab <<-EOF
		one dec vsock::1 25 $PWD/key runas=nosuch:nogrp,supgroup=nosuch
		two dec $PWD/two.sock 25 $PWD/key user=nosuch,group=4000000000
		three dec $PWD/three.sock 25 $PWD/key user=0,group=root,runas=root:0,supgroup=0
		four dec vsock::4 25 $PWD/key runas=4000000000
	EOF
	expected=65 check_table
	diff <(printf '%s\n' "${problems[@]#spipectl: tab:}") - <<-EOF
		1: option supgroup: there is no group nosuch
		1: warning: option runas: there is no user nosuch; systemd will make one up
		1: warning: option runas: there is no group nogrp; systemd will make one up
		2: option user: there is no user nosuch
		2: option group: there is no group 4000000000
		4: option runas: there is no user 4000000000
	EOF
}

@test "check: a signal leaves nothing behind" {
	[ "$(id -u)" -eq 0 ] && unshare --mount true 2>/dev/null || skip 'needs root and mounts of its own'
	# shellcheck disable=SC2016
	run -0 timeout -s KILL 60 unshare --mount bash -c 'mount -t tmpfs none /tmp && mkfifo -m 600 /tmp/key || exit
		echo "one dec vsock::1 25 /tmp/key" >/tmp/tab
		exec 5<>/tmp/key # it waits for the end of the key
		"$0" check /tmp/tab & until ls /tmp/spipectl.*/spipe-one.socket 2>/dev/null; do sleep 0.02; done
		kill $!; wait $!; echo $?; ls /tmp' "$CTL"
	diff <(echo "${output#*$'\n'}") - <<<$'spipectl: /tmp/tab:1: key /tmp/key: ended by signal 15 (Terminated) while it was read\n143\nkey\ntab'
}

@test "check: names of keys that systemd cannot pass on" {
	local name
	echo "clients dec vsock::1 25 $PWD/keys/" >tab
	for name in a:b clé $'a\tb' $'a\x7f' "$(printf 'a%.0s' {1..251})"; do
		mkdir -m 700 keys
		cp key "keys/$name"
		expected=65 check_table
		[ "${problems[-1]}" = "spipectl: tab:1: $PWD/keys/$(tr -c '!-~\n' '?' <<<"$name"): a name that is too long, or not plain ASCII without a colon, keeps the service from starting" ]
		rm -r keys
	done
	mkdir -m 700 keys
	cp key "keys/$(printf 'a%.0s' {1..240})+c@d=e~_.-"
	touch keys/.a:b
	expected=0 check_table
}

@test "check: an address that is taken, and by whom" {
	[ "$EUID" -eq 0 ] || skip 'needs root'
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
	chmod 640 key
	run -0 --separate-stderr "$CTL" probe -o 2.5 -k key "localhost:$port"
	probed "localhost:$port"
	[ "$stderr" = 'spipectl: warning: key key: readable by its group, chmod 600 it' ]
	chmod 600 key
	background spiped -d -F -s "$PWD/d.sock" -t "[127.0.0.1]:$target" -k key 2>spiped.err
	eventually 5 listening "$PWD/d.sock"
	run -0 "$CTL" probe -k key "$PWD/d.sock"
	probed "$PWD/d.sock"
}

@test "probe: a target that goes on after our end is not an error" {
	listen server "$DEC" -k key -- sh -c 'while echo more; do sleep 0.1; done'
	run -0 "$CTL" probe -k key "127.0.0.1:$port"
	probed "127.0.0.1:$port"
}

@test "probe: statuses of what can go wrong" {
	listen server "$DEC" -k key -- cat
	run -77 "$CTL" probe -k other "127.0.0.1:$port"
	one_line <(echo "$output") spipectl "probably has a different key than $(fingerprint other)"
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

# from_spiped STATUS WORD...: what becomes of this command line of spiped; $stderr without what is always there.
from_spiped() {
	local status=$1
	shift
	run "-$status" --separate-stderr "$CTL" from-spiped "$@"
	stderr=$(grep -v '^spipectl: note: without -n spiped serves 100 ' <<<"$stderr") || true
}

@test "from-spiped: each option of spiped" {
	K=$PWD/key
	plain=(-- spiped -d -s '[0.0.0.0]:8025' -t '[127.0.0.1]:25' -k key)
	line="key dec 0.0.0.0:8025 127.0.0.1:25 $K"
	while IFS='|' read -r words options notes; do
		# shellcheck disable=SC2086
		from_spiped 0 "${plain[@]}" $words
		[ "$output" = "$line${options:+ $options}" ]
		notes=${notes:+spipectl: note: $notes}
		[ "${stderr:0:${#notes}}" = "$notes" ]
		[ -n "$notes" ] || [ -z "$stderr" ]
	done <<-'EOF'
		||
		-D||-D is not needed
		-F||-F is not needed
		-R||-R is not needed
		-r 10||-r 10 is not needed
		-p pid.file||-p pid.file does not carry over
		--syslog||--syslog is not needed
		-1||-1 does not carry over
		-f|pfs=no|
		-g|pfs=require|
		-j|keepalive=no|
		-n 7|maxconn=7|
		-n7|maxconn=7|
		-n 0|maxconn=65535|-n 0: there is always a limit
		-o 2.5|timeout=2.5|
		-b [127.0.0.2]:0|bind=127.0.0.2|
		-b [127.0.0.2]:99|bind=127.0.0.2|-b [127.0.0.2]:99: the port does not carry over
		-u daemon|runas=daemon|-u daemon: best left out
		-u daemon:bin|runas=daemon:bin|-u daemon:bin: best left out
		-u :bin|supgroup=bin|-u :bin: the service has a user of its own
		-gj -o 3 -n 5|pfs=require,keepalive=no,timeout=3,maxconn=5|
	EOF
	# each of the installed spiped's is among them, or among those that every command line has
	{ spiped || true; } 2>&1 | grep -oE -e '(^|[^[:alnum:]-])-[A-Za-z]+' | tr -cd 'A-Za-z\n' | grep -o . | sort -u >theirs
	[ "$(wc -l <theirs)" -ge 15 ]
	while read -r letter; do
		[[ $letter == [dekstv] ]] || grep -qF -e "-$letter" "$BATS_TEST_FILENAME"
	done <theirs
	from_spiped 64 "${plain[@]}" -v
	from_spiped 64 "${plain[@]}" -z
	from_spiped 64 "${plain[@]}" word
	from_spiped 64 "${plain[@]:0:5}"
	[ "$stderr" = 'spipectl: the command line of spiped lacks -t' ]
	from_spiped 64 -- spiped -s '[127.0.0.1]:1' -t '[127.0.0.1]:2' -k key
	[ "$stderr" = 'spipectl: the command line of spiped lacks -e or -d' ]
	from_spiped 64 -- spiped -d -t '[127.0.0.1]:2' -k key
	[ "$stderr" = 'spipectl: the command line of spiped lacks -s' ]
	from_spiped 65 "${plain[@]}" -b /path
	[[ $stderr == 'spipectl: -b /path: '* ]]
	from_spiped 64 -- nc -l 8025
}

@test "from-spiped: addresses and keys" {
	from_spiped 0 -- spiped -e -s '[127.0.0.1]:25' -t server.example.com:8025 -k /etc/ssl/mail.key
	[ "$output" = 'mail enc 127.0.0.1:25 server.example.com:8025 /etc/ssl/mail.key' ]
	[ "$stderr" = 'spipectl: note: key /etc/ssl/mail.key: No such file or directory' ]
	from_spiped 0 -- /usr/sbin/spiped -d -s '[::1]:8022' -t localhost:ssh -k key
	[ "$output" = "key dec [::1]:8022 localhost:22 $PWD/key" ]
	from_spiped 0 -- spiped -e -s localhost:8025 -t server.example.com:25 -k -
	[[ $output =~ ^'tunnel enc '('127.0.0.1'|'[::1]')':8025 server.example.com:25 /etc/spipe/tunnel.key'$ ]]
	[[ $stderr == *'-s localhost:8025 is written as '*'-k - does not carry over: write the key to /etc/spipe/tunnel.key' ]]
	from_spiped 65 -- spiped -d -s nosuchname.invalid:1 -t '[127.0.0.1]:2' -k key
	from_spiped 65 -- spiped -d -s '[127.0.0.1]:1' -t here -k key
	from_spiped 65 -- spiped -d -s '[127.0.0.1]:1' -t '[127.0.0.1]:nosuchport' -k key
	[ "$stderr" = 'spipectl: [127.0.0.1]:nosuchport: unknown port' ]
	head -c 31 key >short
	from_spiped 0 -- spiped -d -s '[127.0.0.1]:1' -t '[127.0.0.1]:2' -k short
	[[ $stderr == *'shorter than 32 bytes'* ]]
	cp key 'with blank'
	from_spiped 65 -- spiped -d -s '[127.0.0.1]:1' -t '[127.0.0.1]:2' -k 'with blank'
	[ -z "$output" ]
	from_spiped 0 --name web-1 -- spiped -d -s '[127.0.0.1]:1' -t '[127.0.0.1]:2' -k key
	[[ $output == 'web-1 dec '* ]]
}

@test "from-spiped: a UNIX target that not everyone may connect to" {
	from_spiped 0 -- spiped -d -s '[127.0.0.1]:1' -t "$PWD/target.sock" -k key
	[[ $stderr == "spipectl: note: $PWD/target.sock is not there now: "* ]]
	background nc -l -U target.sock
	eventually 5 test -S target.sock
	user=$(id -un)
	from_spiped 0 -- spiped -d -s '[127.0.0.1]:1' -t "$PWD/target.sock" -k key
	[[ $output == *" runas=$user" ]]
	chmod 770 target.sock
	from_spiped 0 -- spiped -d -s '[127.0.0.1]:1' -t "$PWD/target.sock" -k key
	[[ $output == *" supgroup=$(id -gn)" ]]
	chmod 777 target.sock
	from_spiped 0 -- spiped -d -s "$PWD/listen.sock" -t "$PWD/target.sock" -k key
	[ "$output" = "key dec $PWD/listen.sock $PWD/target.sock $PWD/key" ]
	[[ $stderr == 'spipectl: note: only root may connect to the socket'* ]]
}

@test "from-spiped --command: a command line that does the same, and the one for spipe" {
	listen target cat
	from_spiped 0 --command -- spiped -d -s '[127.0.0.1]:8025' -t "[127.0.0.1]:$port" -k key -o 2 -gj
	[ "$output" = "systemd-socket-activate -l 127.0.0.1:8025 spipe-dec -g -j -o 2 -k $PWD/key -t 127.0.0.1:$port" ]
	# it works
	serve dec bash -c "PATH=$BUILD:\$PATH exec ${output#*8025 }"
	[ "$(spipe -t "127.0.0.1:$port" -k key <<<hello)" = hello ]
	# the client of a ProxyCommand
	# shellcheck disable=SC2088 # ssh expands it
	from_spiped 0 -- spipe -t %h:8022 -k '~/.ssh/server key'
	# shellcheck disable=SC2088
	[ "$output" = "spipe-enc -k '~/.ssh/server key' -t %h:8022" ]
	from_spiped 0 -- spipe -t "127.0.0.1:$port" -k key -f
	[ "$output" = "spipe-enc -f -k key -t 127.0.0.1:$port" ]
	cp key "it's"
	from_spiped 0 -- spipe -t "127.0.0.1:$port" -k "it's"
	[ "$output" = "spipe-enc -k 'it'\\''s' -t 127.0.0.1:$port" ]
	from_spiped 0 --command -- spiped -d -s '[127.0.0.1]:8025' -t "[127.0.0.1]:$port" -k key -u daemon
	[ "$stderr" = 'spipectl: note: -u daemon does not carry over: run it as that user' ]
}

@test "from-spiped --pid: a running spiped, whose key is beside it" {
	mkdir there
	cp key there/web.key
	(cd there && exec spiped -d -s "$PWD/s.sock" -t '[127.0.0.1]:80' -k web.key -n 9 -p "$PWD/pid")
	eventually 5 test -s there/pid
	pid=$(<there/pid)
	echo "$pid" >>"$BATS_TEST_TMPDIR/.pids"
	from_spiped 0 --pid "$pid"
	[ "$output" = "web dec $PWD/there/s.sock 127.0.0.1:80 $PWD/there/web.key maxconn=9" ]
	from_spiped 66 --pid 999999999
	from_spiped 64 --pid nonsense
	from_spiped 64 --pid 1 unit
	from_spiped 64
	from_spiped 64 --
}
