#!/usr/bin/env bats
# shellcheck shell=bash disable=SC2154
# The PROXY protocol: what our programs send, as nginx and HAProxy read it; proxy.py has what a parser of our own reads.
load ../helpers/lib

PROXYPARSE=$TESTS/helpers/proxyparse.py

@test "the parser: headers written by hand, right and wrong" {
	"$PROXYPARSE" check
}

@test "a version that does not exist, given twice, or without -x" {
	local value
	for value in -x0 -x3 -x12 -xx --proxy-protocol= --proxy-protocol=v2; do
		run -64 "$DEC" -k key "$value" -- cat </dev/null
	done
	run -64 "$ENC" -k key -x -x -- cat </dev/null
	listen dec "$DEC" -k key -- cat
	[ "$("$ENC" -k key -- nc -N 127.0.0.1 "$port" <<<hello)" = hello ]
}

# needs PROGRAM: skip the test where it is not installed.
needs() {
	command -v "$1" >/dev/null || [ -x "/usr/sbin/$1" ] || skip "$1 is not installed (make deps)"
	PATH=$PATH:/usr/sbin
}

# nginx_conf FORMAT: an nginx.conf whose log has that format and whose answer is the client's address.
nginx_conf() {
	cat >nginx.conf <<-EOF
		daemon off;
		master_process off;
		pid nginx.pid;
		error_log stderr error;
		events { worker_connections 64; }
		http {
			log_format proxied '$1';
			access_log access.log proxied;
			client_body_temp_path body;
			proxy_temp_path proxied;
			fastcgi_temp_path fastcgi;
			uwsgi_temp_path uwsgi;
			scgi_temp_path scgi;
			server {
				listen unix:$PWD/backend.sock proxy_protocol;
				set_real_ip_from unix:;
				real_ip_header proxy_protocol;
				location / { return 200 "nginx for \$remote_addr \$remote_port\n"; }
			}
		}
	EOF
}

# start_nginx: take connections with PROXY headers on backend.sock; access.log has the client's address and port.
start_nginx() {
	needs nginx
	# shellcheck disable=SC2016
	nginx_conf '$proxy_protocol_addr $proxy_protocol_port $status'
	nginx -t -q -p "$PWD" -c nginx.conf -e stderr
	background nginx -p "$PWD" -c nginx.conf -e stderr 2>nginx.err
	eventually 10 nc -z -U "$PWD/backend.sock"
	: >access.log
}

# start_haproxy: the same; haproxy.log has the key's name too.
start_haproxy() {
	needs haproxy
	cat >haproxy.cfg <<-EOF
		global
			log stdout format raw local0 info
		defaults
			mode http
			log global
			timeout client 10s
			timeout server 10s
			timeout connect 10s
		frontend backend
			bind unix@$PWD/backend.sock accept-proxy
			log-format "client=%ci:%cp name=%[fc_pp_authority] status=%ST"
			http-request return status 200 content-type text/plain lf-string "haproxy for %[src] as %[fc_pp_authority]\n"
	EOF
	haproxy -c -q -f haproxy.cfg
	background haproxy -db -f haproxy.cfg >haproxy.log 2>haproxy.err
	eventually 10 nc -z -U "$PWD/backend.sock"
}

# request: an HTTP request in ./request.
request() {
	printf 'GET / HTTP/1.1\r\nHost: example.com\r\nConnection: close\r\n\r\n' >request
}

# get KEYFILE: make it through spipe-enc to spipe-dec's $port, from 127.0.0.9.
get() {
	request
	"$ENC" -k "$1" -- nc -N -s 127.0.0.9 127.0.0.1 "$port" <request >answer
}

@test "nginx behind spipe-dec -x, both versions: logs the client's address, not spipe-dec's" {
	start_nginx
	local version count=0
	for version in 1 2; do
		listen "dec$version" "$DEC" "-x$version" -k key -- nc -N -U "$PWD/backend.sock"
		get key
		grep -q '^nginx for 127\.0\.0\.9 [1-9][0-9]*$' answer
		count=$((count + 1))
		eventually 5 has_lines access.log $count
		tail -n 1 access.log | grep -qE '^127\.0\.0\.9 [1-9][0-9]* 200$'
		statuses "dec$version" 5 0
		# upstream's client
		timeout -s KILL 10 spipe -t "127.0.0.1:$port" -k key <request >answer
		grep -q '^nginx for 127\.0\.0\.1 [1-9][0-9]*$' answer
		count=$((count + 1))
		eventually 5 has_lines access.log $count
		statuses "dec$version" 5 0 0
	done
}

@test "nginx behind spipe-dec -x: it is the header that nginx takes the address from" {
	start_nginx
	listen dec "$DEC" -k key -- nc -N -U "$PWD/backend.sock"
	get key || true
	not grep -q 'nginx for' answer
	grep -q 'broken header' nginx.err
}

@test "nginx over IPv6 (spipe-dec -x)" {
	start_nginx
	request
	local version
	for version in 1 2; do
		/usr/bin/python3 - "$version" >answer <<-'EOF'
			import os, socket, subprocess, sys
			listener = socket.create_server(("::1", 0), family=socket.AF_INET6)
			client = socket.create_connection(listener.getsockname()[:2])
			near = listener.accept()[0]
			dec = subprocess.Popen([os.environ["DEC"], "-x" + sys.argv[1], "-k", "key", "--", "nc", "-N", "-U",
			                        os.path.abspath("backend.sock")], stdin=near, stdout=near)
			near.close()
			null = os.open("/dev/null", os.O_RDWR)
			for fd in 6, 7:
			    os.dup2(client.fileno(), fd)
			port = client.getsockname()[1]
			enc = subprocess.run([os.environ["ENC"], "-k", "key"], stdin=open("request"), stdout=subprocess.PIPE,
			                     pass_fds=(6, 7), text=True)
			assert "nginx for ::1 %d\n" % port in enc.stdout, enc.stdout
			print(port)
			sys.stdout.flush()
			os._exit(enc.returncode)
		EOF
		eventually 5 has_lines access.log "$version"
		[ "$(tail -n 1 access.log)" = "::1 $(cat answer) 200" ]
	done
}

@test "nginx and the key's name: from 1.23.2 on it reads TLVs, Debian 12's 1.22 does not" {
	needs nginx
	# shellcheck disable=SC2016
	nginx_conf '$proxy_protocol_addr $proxy_protocol_tlv_authority'
	local version
	version=$(nginx -v 2>&1 | sed 's,.*/\([0-9.]*\).*,\1,')
	if [ "$(printf '%s\n' "$version" 1.23.2 | sort -V | head -n 1)" = "$version" ] && [ "$version" != 1.23.2 ]; then
		run -1 nginx -t -p "$PWD" -c nginx.conf -e stderr
		grep -q 'unknown "proxy_protocol_tlv_authority" variable' <<<"$output"
		return
	fi
	background nginx -p "$PWD" -c nginx.conf -e stderr 2>nginx.err
	eventually 10 nc -z -U "$PWD/backend.sock"
	: >access.log
	listen dec "$DEC" -x -k key -- nc -N -U "$PWD/backend.sock"
	get key
	eventually 5 has_lines access.log 1
	[ "$(cat access.log)" = '127.0.0.9 key' ]
}

@test "nginx and HAProxy take a key's name of 250 bytes" {
	local name server
	name=$(printf 'n%.0s' $(seq 250))
	cp key "$name"
	for server in nginx haproxy; do
		rm -f backend.sock
		"start_$server"
		listen "$server-dec" "$DEC" -x -k "./$name" -- nc -N -U "$PWD/backend.sock"
		get key
		grep -q "^$server for 127\.0\.0\.9 " answer
		kill "${pids[-2]}"
		gone_within 5 "${pids[-2]}"
	done
	grep -qx "haproxy for 127\.0\.0\.9 as $name" answer
}

@test "HAProxy behind spipe-dec -x: logs the client's address, and each key's name" {
	start_haproxy
	mkdir k
	local name
	for name in alice 'bob at home' größe; do
		random 32 "k/$name"
	done
	listen dec "$DEC" -x -K k -- nc -N -U "$PWD/backend.sock"
	for name in alice 'bob at home' größe; do
		get "k/$name"
		grep -qx "haproxy for 127\.0\.0\.9 as $name" answer
	done
	statuses dec 5 0 0 0
	eventually 5 has_lines haproxy.log 3
	sed 's/:[1-9][0-9]* /:N /' haproxy.log >logged
	grep -qx 'client=127\.0\.0\.9:N name=alice status=200' logged
	grep -q '^client=127\.0\.0\.9:N name=bob at home status=200' logged
	# upstream's client
	[[ $(timeout -s KILL 10 spipe -t "127.0.0.1:$port" -k k/alice <request) == *'haproxy for 127.0.0.1 as alice'* ]]
}

@test "HAProxy behind spipe-dec -x1: the address without a name" {
	start_haproxy
	listen dec "$DEC" -x1 -k key -- nc -N -U "$PWD/backend.sock"
	get key
	grep -qE '^haproxy for 127\.0\.0\.9 as -?$' answer
	eventually 5 has_lines haproxy.log 1
	grep -qE '^client=127\.0\.0\.9:[1-9][0-9]* name=- status=200$' haproxy.log
}

@test "HAProxy with a header that says LOCAL or UNKNOWN: served, as a connection of its own" {
	start_haproxy
	request
	local options
	for options in -x1 -x2; do
		# socketpairs: nobody knows the client
		"$ENC" -k key -- "$DEC" "$options" -k key -- nc -N -U "$PWD/backend.sock" <request >answer
		grep -q '^haproxy for ' answer
		tail -n 1 answer
	done
}

@test "spipe-enc -x: the near client's address at nginx and HAProxy, through spipe-dec and through spiped" {
	request
	local server version start dec home=$PWD
	for server in nginx haproxy; do
		mkdir "$home/$server"
		cd "$home/$server"
		"start_$server"
		listen dec "$DEC" -k ../key -- nc -N -U "$PWD/backend.sock"
		background spiped -d -F -s "$PWD/spiped.sock" -t "$PWD/backend.sock" -k ../key 2>spiped.err
		eventually 5 listening '[^ ]*spiped.sock'
		dec=$port
		for version in 1 2; do
			for start in "nc -N 127.0.0.1 $dec" "nc -N -U $PWD/spiped.sock"; do
				rm -f enc.*
				# shellcheck disable=SC2086
				listen enc "$ENC" "-x$version" -k ../key -- $start
				nc -N -s 127.0.0.8 127.0.0.1 "$port" <../request >answer
				grep -q "^$server for 127\.0\.0\.8 " answer
				statuses enc 5 0
			done
		done
	done
	cd "$home"
	eventually 5 has_lines nginx/access.log 4
	[ "$(grep -cE '^127\.0\.0\.8 [1-9][0-9]* 200$' nginx/access.log)" = 4 ]
	eventually 5 has_lines haproxy/haproxy.log 4
	[ "$(grep -cE '^client=127\.0\.0\.8:[1-9][0-9]* ' haproxy/haproxy.log)" = 4 ]
}

@test "socat in front: the header has the client's address that socat gives" {
	cat >dec.sh <<-'EOF'
		#!/bin/sh
		exec "$DEC" -x -k key -- sh -c 'cat >header.new; mv header.new header'
	EOF
	chmod +x dec.sh
	port=$(/usr/bin/python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
	background socat -t60 "TCP4-LISTEN:$port,bind=127.0.0.1,reuseaddr" EXEC:./dec.sh 2>socat.err
	# shellcheck disable=SC2016
	eventually 5 eval '"$ENC" -k key -- nc -N -s 127.0.0.9 127.0.0.1 "$port" </dev/null 2>/dev/null'
	eventually 5 test -e header
	"$PROXYPARSE" header >parsed
	grep -qx 'family TCP4' parsed
	grep -qE '^source 127\.0\.0\.9 [1-9][0-9]*$' parsed
	grep -qx "destination 127.0.0.1 $port" parsed
	grep -qx 'tlv AUTHORITY key' parsed
}
