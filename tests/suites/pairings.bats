#!/usr/bin/env bats
# shellcheck shell=bash disable=SC2154
# Every pairing of our programs and Debian's spiped, with every pair of -f, -g and neither, byte for byte.
# In each, ./in goes from the client's side to ./got, and ./back from the server's side to ./out.
load ../helpers/lib

# server KIND FLAG: start the decrypting end, with an exchange of ./back and ./got behind it.
server() {
	local flag=$2
	case $1 in
	ours) listen "server$2" "$DEC" ${flag:+"$flag"} -k key -- "$NET" exchange back got ;;
	listening)
		listen "target$2" "$NET" exchange back got
		serve "server$2" "$DEC" ${flag:+"$flag"} -k key -t "127.0.0.1:$port"
		;;
	spiped)
		listen -u "target$2" "$NET" exchange back got
		background spiped -d -F -s "$PWD/server$2.sock" -t "$PWD/target$2.sock" -k key ${flag:+"$flag"} \
			2>"spiped-d$2.err"
		eventually 5 listening "$PWD/server$2.sock"
		;;
	esac
}

# client KIND FLAG SERVERFLAG: run the exchange of ./in and ./out through the encrypting end. Ours and spipe:
# its exit status is the end's. The kinds "listening" of both are ours, with a listening near side and -t.
client() {
	local flag=$2
	case $1 in
	ours-to-spiped) exchange in out "$ENC" ${flag:+"$flag"} -k key -- nc -N -U "$PWD/server$3.sock" 2>client.err ;;
	ours) exchange in out "$ENC" ${flag:+"$flag"} -k key -- nc -N 127.0.0.1 "$port" 2>client.err ;;
	listening | listening-to-spiped)
		local target=127.0.0.1:$port near=$2to$3.near
		[ "$1" = listening ] || target=$PWD/server$3.sock
		if ! [ -e "$near" ]; then
			serve "client$2to$3" "$ENC" ${flag:+"$flag"} -k key -t "$target"
			echo "$port" >"$near"
			[ "$1" != listening ] || port=${target##*:}
		fi
		exchange in out "127.0.0.1:$(<"$near")"
		;;
	spipe) exchange in out spipe -t "127.0.0.1:$port" -k key ${flag:+"$flag"} 2>client.err ;;
	spiped)
		if ! [ -S "client$2to$3.sock" ]; then
			background spiped -e -F -s "$PWD/client$2to$3.sock" -t "127.0.0.1:$port" -k key \
				${flag:+"$flag"} 2>"spiped-e$2to$3.err"
			eventually 5 listening "$PWD/client$2to$3.sock"
		fi
		exchange in out "$PWD/client$2to$3.sock"
		;;
	esac
}

# passes CLIENT SERVER COUNT CLIENTFLAG SERVERFLAG: one connection, the COUNTth to this server.
passes() {
	local log=server$5.status
	[ "$2" = ours ] || log=target$5.status
	rm -f got out
	client "$1" "$4" "$5"
	eventually 10 has_lines "$log" "$3"
	[ "$(sed -n "$3p" "$log")" = 0 ]
	cmp in got
	cmp back out
}

# all_sizes CLIENT SERVER: sizes around a packet's, with every pair of flags that go together.
all_sizes() {
	local size count their our
	for their in '' -f -g; do
		server "$2" "$their"
		count=0
		for our in '' -f -g; do
			case $our$their in -f-g | -g-f) continue ;; esac
			for size in 0 1 1023 1024 1025; do
				random $size in
				random $((1025 - size)) back
				count=$((count + 1))
				echo "client $our, server $their, $size bytes"
				passes "$1" "$2" $count "$our" "$their"
			done
		done
	done
}

# much CLIENT SERVER: 64 MiB both ways at once.
much() {
	server "$2" ''
	random 67108864 in
	random 67108864 back
	passes "$1" "$2" 1 '' ''
}

@test "spipe to spipe-dec: all sizes and flags" {
	all_sizes spipe ours
}

@test "spiped -e to spipe-dec: all sizes and flags" {
	all_sizes spiped ours
}

@test "spipe-enc to spiped -d: all sizes and flags" {
	all_sizes ours-to-spiped spiped
}

@test "spipe-enc to spipe-dec: all sizes and flags" {
	all_sizes ours ours
}

@test "spipe to a listening spipe-dec: all sizes and flags" {
	all_sizes spipe listening
}

@test "spiped -e to a listening spipe-dec: all sizes and flags" {
	all_sizes spiped listening
}

@test "a listening spipe-enc to spiped -d: all sizes and flags" {
	all_sizes listening-to-spiped spiped
}

@test "a listening spipe-enc to a listening spipe-dec: all sizes and flags" {
	all_sizes listening listening
}

@test "spipe to spipe-dec: 64 MiB both ways at once" {
	much spipe ours
}

@test "spiped -e to spipe-dec: 64 MiB both ways at once" {
	much spiped ours
}

@test "spipe-enc to spiped -d: 64 MiB both ways at once" {
	much ours-to-spiped spiped
}

@test "spipe-enc to spipe-dec: 64 MiB both ways at once" {
	much ours ours
}

@test "a listening spipe-enc to a listening spipe-dec: 64 MiB both ways at once" {
	much listening listening
}

# What one end cannot know it cannot report: an end with -f has done its part of the handshake when the other,
# with -g, turns away. So 77 is asked of the end that refuses, and of a client that is refused before
# the handshake is over.

@test "-f against -g: spipe-dec -g refuses spipe, spiped -e and spipe-enc" {
	random 100 in
	random 100 back
	listen server "$DEC" -g -k key -- "$NET" exchange back got
	run client spipe -f ''
	run client spiped -f ''
	run -77 client ours -f ''
	one_line client.err spipe-enc
	statuses server 5 77 77 77
	[ ! -e got ]
}

@test "-f against -g: spiped -d -g refuses spipe-enc -f" {
	random 100 in
	random 100 back
	server spiped -g
	run -77 client ours-to-spiped -f -g
	one_line client.err spipe-enc
	[ ! -s out ]
	[ ! -s got ] # upstream touches the target before it knows whom it talks to
}

@test "-f against -g: spipe-enc -g refuses spiped -d -f" {
	random 100 in
	random 100 back
	server spiped -f
	run -77 client ours-to-spiped -g -f
	one_line client.err spipe-enc
	[ ! -s out ]
	[ ! -s got ]
}

@test "-f against -g: spipe-enc -g refuses spipe-dec -f" {
	random 100 in
	random 100 back
	server ours -f
	run -77 client ours -g -f
	one_line client.err spipe-enc
	[ ! -s out ]
	eventually 5 has_lines server-f.status 1
	[ ! -s got ]
}

@test "-f against -g: spipe -g refuses spipe-dec -f, which ends" {
	random 100 in
	random 100 back
	server ours -f
	run client spipe -g -f
	[ ! -s out ]
	eventually 5 has_lines server-f.status 1
	[ ! -s got ]
}
