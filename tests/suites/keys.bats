#!/usr/bin/env bats
# shellcheck shell=bash disable=SC2154,SC2030,SC2031 # bats: $port and the like; each test has its own shell
# Several keys: which one the peer holds, key directories, rotation and revocation, credentials, names.
load ../helpers/lib

HOLDER=$TESTS/helpers/holder.py

# new_keys DIR NAME...: a key of its own for each name.
new_keys() {
	local dir=$1 name
	shift
	mkdir -p "$dir"
	for name; do
		random 32 "$dir/$name"
	done
}

# many_keys DIR N: keys 0001 to N, quickly.
many_keys() {
	mkdir -p "$1"
	random $((32 * $2)) all
	(cd "$1" && split -a 4 --numeric-suffixes=1 -b 32 ../all '')
	[ "$(find "$1" -type f | wc -l)" -eq "$2" ]
}

# serve NAME OPTION...: a server that tells each client its key's name and then echoes.
serve() {
	local name=$1
	shift
	# shellcheck disable=SC2016
	listen "$name" "$DEC" "$@" -- sh -c 'echo "key $SPIPE_KEY"; exec cat'
}

# spipe_as KEYFILE: what upstream's client with that key gets for a word of its own.
spipe_as() {
	echo "hello" | timeout -s KILL 10 spipe -t "127.0.0.1:$port" -k "$1" 2>/dev/null
}

# spiped_as KEYFILE: the same through upstream's daemon.
spiped_as() {
	local socket=client$RANDOM.sock
	background spiped -e -F -s "$PWD/$socket" -t "127.0.0.1:$port" -k "$1" 2>>spiped.err
	eventually 5 listening "$PWD/$socket"
	echo "hello" | timeout -s KILL 10 nc -N -U "$socket"
}

# is_known_as NAME ANSWER
is_known_as() {
	diff <(printf 'key %s\nhello\n' "$1") <(echo "$2")
}

# judges_clients PATHPREFIX NAME...: the clients with these keys are known by name, and a stranger is not.
judges_clients() {
	local prefix=$1 name before
	shift
	for name; do
		is_known_as "$name" "$(spipe_as "$prefix$name")"
	done
	is_known_as "$1" "$(spiped_as "$prefix$1")"
	is_known_as "${!#}" "$("$ENC" -k "$prefix${!#}" -- nc -N 127.0.0.1 "$port" <<<hello)"
	before=$(wc -l <dec.status)
	not grep -qvx 0 dec.status
	[ -z "$(spipe_as other)" ]
	[ -z "$(spiped_as other)" ]
	eventually 5 has_lines dec.status $((before + 2))
	[ "$(tail -n 2 dec.status | sort -u)" = 77 ]
	[ "$(grep -c '^spipe-dec: .*did not prove that it holds a key:' dec.err)" = 2 ]
}

@test "3 keys, -k repeated: spipe, spiped and spipe-enc are each known by their key" {
	new_keys k alice bob carol
	serve dec -k k/alice -k k/bob -k k/carol
	judges_clients k/ alice bob carol
}

@test "3 keys, -K: spipe, spiped and spipe-enc are each known by their key" {
	new_keys k alice bob carol
	serve dec -K k
	judges_clients k/ alice bob carol
}

@test "3 keys, -k and -K together" {
	new_keys k bob carol
	new_keys . alice
	serve dec -k alice --key-dir=k
	is_known_as alice "$(spipe_as alice)"
	is_known_as bob "$(spipe_as k/bob)"
	is_known_as carol "$(spipe_as k/carol)"
}

@test "1,000 keys, -k repeated" {
	many_keys k 1000
	local options=() name
	for name in k/*; do
		options+=(-k "$name")
	done
	serve dec "${options[@]}"
	judges_clients k/ 0001 0500 1000
}

@test "1,000 keys, -K" {
	many_keys k 1000
	serve dec -K k
	judges_clients k/ 0001 0002 0256 0257 0500 0999 1000
}

@test "1,000 keys beside one: the cost of a connection (printed, not judged)" {
	many_keys k 1000
	new_keys one 0001
	/usr/bin/python3 - "$ENC" "$DEC" >cost.txt <<-'PYTHON'
		import os, socket, statistics, subprocess, sys, time
		enc, dec = sys.argv[1:]
		null = os.open("/dev/null", os.O_RDWR)
		for fd in 6, 7:
		    os.dup2(null, fd)
		def connection(keys, key):
		    one, two = socket.socketpair()
		    start = time.monotonic()
		    server = subprocess.Popen([dec, "-K", keys, "--", "true"], stdin=two, stdout=two)
		    for fd in 6, 7:
		        os.dup2(one.fileno(), fd)
		    client = subprocess.Popen([enc, "-k", key], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
		                              pass_fds=(6, 7))
		    for fd in 6, 7:
		        os.dup2(null, fd)
		    one.close(); two.close()
		    assert (client.wait(), server.wait()) == (0, 0)
		    return time.monotonic() - start
		cases = {"one": "one/0001", "k": "k/1000"}
		times = {keys: [] for keys in cases}
		for keys in list(cases) * 15:
		    times[keys].append(connection(keys, cases[keys]) * 1000)
		one, many = (statistics.median(times[keys]) for keys in ("one", "k"))
		print("a whole connection, median of 15: %.1f ms with 1 key, %.1f ms with 1,000: %.1f ms more, %.2f times"
		      % (one, many, many - one, many / one))
	PYTHON
	echo "# $(cat cost.txt)" >&3
}

@test "-K: files that cannot be keys, by name or type, are skipped; rules without a key are reported" {
	new_keys k good .hidden old~ good.conf.bak a.bak b.swp c.tmp '#d#' e.orig
	new_keys elsewhere linked
	printf '# no rules\n' >k/good.conf
	random 32 k/unrelated.conf
	mkdir k/directory
	mkfifo k/fifo
	ln -s ../elsewhere/linked k/link
	ln -s ../nowhere k/dangling
	serve dec -K k
	local name
	is_known_as good "$(spipe_as k/good)"
	is_known_as link "$(spipe_as k/link)"
	for name in k/.hidden k/old~ k/good.conf.bak k/a.bak k/b.swp k/c.tmp 'k/#d#' k/e.orig k/good.conf k/unrelated.conf; do
		run -77 --separate-stderr "$HOLDER" "$name" "$DEC" -K k -- cat
		[ "${lines[2]}" = 'got 32' ]
		not grep -q skipped <<<"$stderr"
	done
	statuses dec 5 0 0
	[ "$(sort -u dec.err)" = 'spipe-dec: rules unrelated.conf belong to no key: there is no unrelated beside them' ]
}

@test "-K: bad files are reported by name, in order, and skipped" {
	new_keys k good m
	: >k/a-empty
	random 31 k/z-short
	printf 'expires never\n' >k/m.conf
	serve dec -K k
	is_known_as good "$(spipe_as k/good)"
	statuses dec 5 0
	diff - <(sed 's/\(is skipped: \).*/\1/' dec.err) <<-'EOF'
		spipe-dec: key a-empty is skipped: 
		spipe-dec: key m is skipped: 
		spipe-dec: key z-short is skipped: 
	EOF
	grep -q 'a-empty.*empty' dec.err
	grep -q 'm.conf line 1' dec.err
	grep -q 'z-short.*32' dec.err
}

@test "-K: a file that everyone may read or write is not used as a key" {
	new_keys k good read written README.md
	chmod 640 k/good
	chmod 604 k/read
	chmod 602 k/written
	local name says='open to everyone, and so not secret; if it is a key, chmod 600 it'
	for name in read written README.md; do
		run -77 "$HOLDER" "k/$name" "$DEC" -K k -- cat
	done
	run -0 --separate-stderr "$HOLDER" k/good "$DEC" -K k -- cat
	diff - <(echo "$stderr") <<-EOF
		spipe-dec: key good: readable by its group, chmod 600 it
		spipe-dec: key read is skipped: $says
		spipe-dec: key written is skipped: $says
	EOF
	# named on the command line it is one, as with spiped
	run -0 --separate-stderr "$HOLDER" k/read "$DEC" -k k/read -- cat
	[[ $stderr == *'key k/read: readable by everyone, chmod 600 it'* ]]
}

@test "strangers cause no warnings about keys, rules and directories; holders do" {
	new_keys k good same
	cp k/good k/same
	: >k/empty
	chmod 640 k/good
	chmod 775 k
	printf 'expires 2099-01-01\n' >k/same.conf
	chmod 666 k/same.conf
	printf 'require-pfs\n' >k/nobody.conf
	random 32 stranger
	run -77 --separate-stderr "$HOLDER" stranger "$DEC" -K k -- cat
	[ "${#stderr_lines[@]}" -eq 1 ]
	run -0 --separate-stderr "$HOLDER" k/good "$DEC" -K k -- cat
	[ "${#stderr_lines[@]}" -eq 6 ]
}

@test "rules and key directories that others may write to are warned about" {
	new_keys k good
	echo require-pfs >k/good.conf
	chmod 755 k
	chmod 644 k/good.conf
	run -0 --separate-stderr "$HOLDER" k/good "$DEC" -K k -- cat
	[ -z "$stderr" ]
	chmod 775 k
	chmod 666 k/good.conf
	run -0 --separate-stderr "$HOLDER" k/good "$DEC" -K k -- cat
	diff - <(echo "$stderr") <<-'EOF'
		spipe-dec: key directory k: writable by its group, chmod go-w it
		spipe-dec: rules good.conf: writable by everyone, chmod go-w it
	EOF
	# as systemd has them, whatever that is
	mkdir credentials
	cp k/good credentials/k_good
	cp k/good.conf credentials/k_good.conf
	chmod 777 credentials credentials/*
	CREDENTIALS_DIRECTORY=$PWD/credentials run -0 --separate-stderr "$HOLDER" k/good "$DEC" -K k -- cat
	[ -z "$stderr" ]
}

@test "-K: an unreadable file is reported by name and skipped" {
	new_keys k good bad
	chmod 0 k/bad
	local as=()
	# root reads everything, but not without its capabilities
	[ "$(id -u)" -ne 0 ] || as=(setpriv --bounding-set=-all --inh-caps=-all)
	# shellcheck disable=SC2016
	listen dec "${as[@]}" "$DEC" -K k -- sh -c 'echo "key $SPIPE_KEY"; exec cat'
	is_known_as good "$(spipe_as k/good)"
	statuses dec 5 0
	one_line dec.err spipe-dec 'key bad is skipped: Permission denied'
}

@test "-K: no usable key, or no directory: 78, with a message, and not a byte for the peer" {
	mkdir empty bad
	: >bad/a
	random 31 bad/b
	new_keys hidden .a b~
	local dir
	for dir in empty bad hidden missing key; do
		run -78 --separate-stderr "$DEC" -K "$dir" -- cat </dev/null
		[ -z "$output" ]
		[ "${stderr_lines[-1]#*"$dir"}" != "${stderr_lines[-1]}" ]
		[[ ${stderr_lines[-1]} == 'spipe-dec: key directory '* ]]
	done
	run -78 --separate-stderr "$DEC" -K bad -- cat </dev/null
	[ "${#stderr_lines[@]}" -eq 1 ]
	[[ $stderr == *'bad: no usable key in it: key b is skipped: it is shorter than 32 bytes'* ]]
}

@test "-k: a bad file is an error even beside good ones" {
	: >empty
	random 31 short
	mkdir directory
	local name
	for name in empty short directory missing; do
		run -78 --separate-stderr "$DEC" -k key -k "$name" -- cat </dev/null
		[ -z "$output" ]
		echo "$stderr" >dec.err
		one_line dec.err spipe-dec "key $name"
	done
}

@test "-K twice, and several keys for spipe-enc: usage errors" {
	mkdir a b
	run -64 "$DEC" -K a -K b -- cat </dev/null
	run -64 "$ENC" -K a -- cat </dev/null
	run -64 "$ENC" -k key -k other -- cat </dev/null
	run -64 "$DEC" -- cat </dev/null
}

@test "a key from a pipe, as the shell makes them; an empty one is an error, not a hang" {
	serve dec -k key
	is_known_as key "$("$ENC" -k <(cat key) -- nc -N 127.0.0.1 "$port" <<<hello)"
	# in two pieces, the second late
	mkfifo pieces
	(
		head -c 16 key
		eventually 5 test -e waiting
		tail -c 16 key
	) >pieces &
	is_known_as key "$(exec 8<pieces; (sleep 0.2; : >waiting) & "$ENC" -k /dev/fd/8 -- nc -N 127.0.0.1 "$port" <<<hello)"
	mkfifo fifo
	run -78 --separate-stderr timeout -s KILL 5 "$DEC" -k fifo -- cat </dev/null
	grep -q 'fifo.*is empty' <<<"$stderr"
}

@test "no command for the client's key, though there is one for another: 64, and nothing runs" {
	new_keys k alice bob
	# shellcheck disable=SC2016
	echo 'command sh -c echo${IFS}key${IFS}$SPIPE_KEY;cat' >k/alice.conf
	listen dec "$DEC" -K k
	is_known_as alice "$(spipe_as k/alice)"
	[ -z "$(spipe_as k/bob)" ]
	statuses dec 5 0 64
	one_line dec.err spipe-dec 'neither the rules of the client.s key nor the command line gives a target or command'
}

@test "one secret under two names is used, and warned about when its holder comes" {
	new_keys k another first
	cp k/first k/second
	serve dec -K k
	is_known_as another "$(spipe_as k/another)"
	statuses dec 5 0
	[ ! -s dec.err ]
	is_known_as second "$(spipe_as k/first)"
	statuses dec 5 0 0
	one_line dec.err spipe-dec 'key first is the same as key second: its holder is taken for second'
}

# stream NAME CLIENT...: connections without pause, until ./stop exists; each is a line of NAME.ok or NAME.bad.
stream() {
	local name=$1
	shift
	# shellcheck disable=SC2016 # expanded by that shell
	background bash -c 'name=$1
		shift
		while [ ! -e stop ]; do
			if answer=$(echo hello | timeout -s KILL 10 "$@" 2>>"$name.err") && [[ $answer == "key "*$'"'\\n'"'hello ]]; then
				echo "${answer%%$'"'\\n'"'*}" >>"$name.ok"
			else
				echo "refused: $answer" >>"$name.bad"
			fi
		done' - "$name" "$@"
}

# more NAME COUNT: wait until NAME.ok has COUNT more lines than now.
more() {
	local now=0
	[ ! -e "$1.ok" ] || now=$(wc -l <"$1.ok")
	eventually 20 has_lines "$1.ok" $((now + $2))
}

@test "rotation: new keys come and old ones go under a stream of connections, and none is refused" {
	new_keys k old
	serve dec -K k
	cp k/old client-key
	stream upstream spipe -t "127.0.0.1:$port" -k client-key
	stream ours "$ENC" -k client-key -- nc -N 127.0.0.1 "$port"
	local previous=old next
	for next in new newer newest; do
		more upstream 8
		more ours 8
		# the server first, and the clients next, each in one step
		random 32 k/$next.tmp
		mv k/$next.tmp k/$next
		more upstream 4
		more ours 4
		cp k/$next client-key.new
		mv client-key.new client-key
		# both clients have started again
		more upstream 2
		more ours 2
		rm k/$previous
		previous=$next
	done
	more upstream 8
	more ours 8
	touch stop
	ended 10 "${pids[1]}"
	ended 10 "${pids[2]}"
	[ ! -e upstream.bad ]
	[ ! -e ours.bad ]
	diff <(printf 'key %s\n' old new newer newest) <(uniq upstream.ok)
	diff <(printf 'key %s\n' old new newer newest) <(uniq ours.ok)
	eventually 5 has_lines dec.status "$(cat upstream.ok ours.ok | wc -l)"
	[ "$(sort -u dec.status)" = 0 ]
	not grep -v 'is skipped: No such file' dec.err
}

@test "revocation: the next connection is refused, an open one goes on" {
	new_keys k alice bob
	serve dec -K k
	hold enc "$ENC" -k k/bob -- nc -N 127.0.0.1 "$port"
	local enc=$!
	echo before >&9
	eventually 5 grep -q before enc.out
	mv k/bob bob
	[ -z "$(spipe_as bob)" ]
	eventually 5 has_lines dec.status 1
	[ "$(cat dec.status)" = 77 ]
	is_known_as alice "$(spipe_as k/alice)"
	echo after >&9
	eventually 5 grep -q after enc.out
	exec 9>&-
	ended 5 "$enc"
	[ "$status" -eq 0 ]
	# and back again, with nothing reloaded
	mv bob k/bob
	is_known_as bob "$(spipe_as k/bob)"
	statuses dec 5 77 0 0 0
}

@test "a stranger to 1,000 keys gets the nonce and not a byte more" {
	many_keys k 1000
	run -77 --separate-stderr "$HOLDER" other "$DEC" -K k -- sh -c 'echo ran >ran'
	[ "${lines[2]}" = 'got 32' ]
	[ ! -e ran ]
	run -77 --separate-stderr "$HOLDER" -f other "$DEC" -K k -- sh -c 'echo ran >ran'
	[ "${lines[2]}" = 'got 32' ]
	[ ! -e ran ]
}

@test "the environment: the key's name and all addresses, over IPv4" {
	cp key alice
	# shellcheck disable=SC2016
	run -0 "$HOLDER" -4 alice "$DEC" -k ./alice -- sh -c \
		'echo "$SPIPE_KEY $SPIPE_PEER_ADDR $SPIPE_PEER_PORT $SPIPE_LOCAL_ADDR $SPIPE_LOCAL_PORT"'
	[ "${lines[2]}" = "alice ${lines[0]#client } ${lines[1]#server }" ]
	[[ ${lines[0]} == 'client 127.0.0.2 '* ]]
	[[ ${lines[1]} == 'server 127.0.0.3 '* ]]
}

@test "the environment over IPv6" {
	# shellcheck disable=SC2016
	run -0 "$HOLDER" -6 key "$DEC" -k key -- sh -c \
		'echo "$SPIPE_KEY $SPIPE_PEER_ADDR $SPIPE_PEER_PORT $SPIPE_LOCAL_ADDR $SPIPE_LOCAL_PORT"'
	[ "${lines[2]}" = "key ${lines[0]#client } ${lines[1]#server }" ]
	[[ ${lines[0]} == 'client ::1 '* ]]
}

@test "the environment over a UNIX socket with a name, and without one" {
	export SPIPE_KEY=forged SPIPE_PEER_ADDR=forged SPIPE_PEER_PORT=forged SPIPE_LOCAL_ADDR=forged SPIPE_LOCAL_PORT=forged
	# shellcheck disable=SC2016
	run -0 "$HOLDER" -u key "$DEC" -k key -- sh -c 'env | grep ^SPIPE_ | sort'
	diff <(printf 'SPIPE_KEY=key\nSPIPE_LOCAL_ADDR=%s/near.sock\n' "$PWD") <(echo "$output")
	run -0 "$HOLDER" -s key "$DEC" -k key -- sh -c 'env | grep ^SPIPE_ | sort'
	[ "$output" = 'SPIPE_KEY=key' ]
}

@test "the environment under tcpserver" {
	new_keys k alice
	port=$(free_port)
	background tcpserver -RHl0 127.0.0.1 "$port" "$DEC" -K k -- sh -c 'env | grep ^SPIPE_ | sort' 2>dec.err
	local try
	# shellcheck disable=SC2016
	try='"$ENC" -k k/alice -- nc -N -s 127.0.0.9 127.0.0.1 "$port" </dev/null >out 2>/dev/null'
	eventually 5 eval "$try"
	sed -i 's/^\(SPIPE_PEER_PORT=\)[1-9][0-9]*$/\1N/' out
	diff - out <<-EOF
		SPIPE_KEY=alice
		SPIPE_LOCAL_ADDR=127.0.0.1
		SPIPE_LOCAL_PORT=$port
		SPIPE_PEER_ADDR=127.0.0.9
		SPIPE_PEER_PORT=N
	EOF
}

@test "the environment under socat: with the socket itself, and with a socketpair and socat's variables" {
	new_keys k alice
	local how try
	# shellcheck disable=SC2016
	printf '#!/bin/sh\nexec "$DEC" -K k -- sh -c "env | grep ^SPIPE_ | sort"\n' >dec.sh
	chmod +x dec.sh
	for how in ,nofork ''; do
		port=$(free_port)
		background socat -t60 "TCP4-LISTEN:$port,bind=127.0.0.1,reuseaddr,fork" "EXEC:./dec.sh$how" 2>>socat.err
		# shellcheck disable=SC2016
		try='"$ENC" -k k/alice -- nc -N -s 127.0.0.9 127.0.0.1 "$port" </dev/null >out 2>/dev/null'
		eventually 5 eval "$try"
		sed -i 's/^\(SPIPE_PEER_PORT=\)[1-9][0-9]*$/\1N/' out
		diff - out <<-EOF
			SPIPE_KEY=alice
			SPIPE_LOCAL_ADDR=127.0.0.1
			SPIPE_LOCAL_PORT=$port
			SPIPE_PEER_ADDR=127.0.0.9
			SPIPE_PEER_PORT=N
		EOF
	done
}

@test "control characters get neither into the environment nor into the log, not even from a key's name" {
	local name
	new_keys k good
	for name in $'new\nline' $'escape\e[31m' $'tab\tbed' $'return\r' $'delete\x7f' $'\nSPIPE_RESULT=clean'; do
		random 32 "k/$name"
		# in a directory: skipped; by its own name: an error
		run -77 --separate-stderr "$HOLDER" "k/$name" "$DEC" --verbose -K k -- sh -c 'echo ran >ran'
		[ ! -e ran ]
		LC_ALL=C not grep -q '[[:cntrl:]]' <<<"$stderr"
		run -0 --separate-stderr "$HOLDER" k/good "$DEC" --verbose -K k -- true
		LC_ALL=C not grep -q '[[:cntrl:]]' <<<"$stderr"
		[ "$(grep -c 'is skipped' <<<"$stderr")" -eq 1 ]
		run -78 --separate-stderr "$DEC" -k "k/$name" -- cat </dev/null
		LC_ALL=C not grep -q '[[:cntrl:]]' <<<"$stderr"
		rm "k/$name"
	done
	# a peer's address that a supervisor passes on
	export REMOTE_ADDR=$'127.0.0.1\nEVIL=1' REMOTE_PORT=$'1\n2'
	run -0 --separate-stderr "$HOLDER" -s k/good "$DEC" --verbose -K k -- env
	not grep -q '^SPIPE_PEER' <<<"$output"
	export REMOTE_ADDR=192.0.2.1
	run -0 --separate-stderr "$HOLDER" -s k/good "$DEC" --verbose -K k -- env
	grep -qx 'SPIPE_PEER_ADDR=192.0.2.1' <<<"$output"
	not grep -q '^SPIPE_PEER_PORT' <<<"$output"
	[[ $stderr == 'spipe-dec: 192.0.2.1 key good: '* ]]
}

@test "a UNIX socket's path with control characters shows without them" {
	mkdir $'dir\e\n'
	cd $'dir\e\n'
	run -0 --separate-stderr "$HOLDER" -u ../key "$DEC" --verbose -k ../key -- env
	LC_ALL=C not grep -q '[^[:print:]]' <<<"$(grep ^SPIPE_ <<<"$output")$stderr"
	grep -q '^SPIPE_LOCAL_ADDR=.*/dir??/near.sock$' <<<"$output"
}

@test "credentials: -k NAME and the files NAME_* of -K NAME" {
	export CREDENTIALS_DIRECTORY=$PWD/credentials
	mkdir credentials keys
	cp key credentials/single
	random 32 credentials/clients_alice
	random 32 credentials/clients_bob
	random 32 credentials/others_carol
	random 32 credentials/clients_README
	random 32 keys/dave
	chmod 440 credentials/*
	printf 'require-pfs\n' >credentials/clients_bob.conf
	cp other single # in the working directory: not looked at
	serve dec -k single -K clients
	is_known_as single "$(spipe_as key)"
	is_known_as alice "$(spipe_as credentials/clients_alice)"
	is_known_as bob "$(spipe_as credentials/clients_bob)"
	[ -z "$(echo hello | spipe -f -t "127.0.0.1:$port" -k credentials/clients_bob 2>/dev/null)" ]
	[ -z "$(spipe_as other)" ]
	[ -z "$(spipe_as credentials/others_carol)" ]
	[ -z "$(spipe_as credentials/clients_README)" ]
	statuses dec 5 0 0 0 77 77 77 77
	# 0440 is how systemd has them: no word about it
	not grep -q 'chmod' dec.err
	# what is not a credential, and whatever has a slash, is a path
	run -0 --separate-stderr "$HOLDER" other "$DEC" -k ./single -- cat
	run -0 --separate-stderr "$HOLDER" other "$DEC" -k other -- cat
	run -0 --separate-stderr "$HOLDER" keys/dave "$DEC" -K ./keys -- cat
	run -78 --separate-stderr "$DEC" -K nobody -- cat </dev/null
	grep -q nobody <<<"$stderr"
	# an empty credential (systemd issue 27373)
	: >credentials/empty
	run -78 "$DEC" -k empty -- cat </dev/null
}

@test "credentials: an empty one among the files of -K is skipped" {
	export CREDENTIALS_DIRECTORY=$PWD/credentials
	mkdir credentials
	random 32 credentials/clients_alice
	: >credentials/clients_bob
	serve dec -K clients
	is_known_as alice "$(spipe_as credentials/clients_alice)"
	statuses dec 5 0
	one_line dec.err spipe-dec 'bob.*skipped.*empty'
}

@test "the environment over a vsock, and over a socket of a kind that nobody knows" {
	if grep -q __asan_init "$DEC"; then
		skip "AddressSanitizer wants to be the first library"
	fi
	# Few machines have a vsock to themselves: the kernel's answer is made up.
	cat >peer.c <<-'END'
		#include <stdlib.h>
		#include <string.h>
		#include <sys/socket.h>
		#include <linux/vm_sockets.h>

		int getpeername(int fd, struct sockaddr *address, socklen_t *size)
		{
			struct sockaddr_vm peer = { .svm_family = atoi(getenv("FAMILY")), .svm_cid = 3, .svm_port = 123456 };

			(void)fd;
			memcpy(address, &peer, sizeof(peer));
			*size = sizeof(peer);
			return 0;
		}
	END
	grep -q libcrypto.so "$DEC" || skip 'the programs are linked statically'
	"${CC:-cc}" -shared -fPIC -o peer.so peer.c
	local family
	for family in 40 99; do
		run -0 --separate-stderr "$HOLDER" -s key env LD_PRELOAD="$PWD/peer.so" FAMILY=$family "$DEC" --verbose -k key -- \
			sh -c 'env | grep ^SPIPE_ | sort'
		case $family in
		40)
			[ "$output" = $'SPIPE_KEY=key\nSPIPE_PEER_ADDR=vsock:3\nSPIPE_PEER_PORT=123456' ]
			[[ $stderr == 'spipe-dec: vsock:3:123456 key key: '* ]]
			;;
		99)
			[ "$output" = SPIPE_KEY=key ]
			[[ $stderr == 'spipe-dec: - key key: '* ]]
			;;
		esac
	done
}

@test "credentials: the message for a missing file says that it was missing" {
	mkdir credentials
	printf missing >credentials/mail.key
	CREDENTIALS_DIRECTORY=$PWD/credentials run -78 --separate-stderr "$DEC" -k mail.key -t 127.0.0.1:1 </dev/null
	[[ $stderr == *"mail.key: it was missing or shorter than 32 bytes when the service started; spipectl check finds the file (status 78)" ]]
}
