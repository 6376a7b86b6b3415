#!/usr/bin/env bats
# The services of spipe-filters(7), with the real programs: each through the two lines of spipetab that the page shows,
# taken from there, under a real systemd. Client and server are one machine, in a network of its own.
# shellcheck shell=bash disable=SC2154,SC2016 # variables of lib.bash, and in what eval reads
load ../helpers/lib
load ../helpers/systemd

setup_file() {
	systemd_prepare
	[ -z "${CANNOT:-}" ] || return 0
	cd "$ROOT" || return
	section SERVICES "$TESTS/../man/spipe-filters.7" | grep -E '^[a-z-]+ +(enc|dec) ' >spipetab
	[ "$(wc -l <spipetab)" -ge 15 ]
	awk '{ print $5 }' spipetab | while read -r key; do
		new_keys "$key"
	done
	echo '127.0.0.1 localhost server.example' >hosts
	systemd_boot
	[ -z "${CANNOT:-}" ] || return 0
	near ip address add 192.0.2.10/32 dev lo # the BMC
	echo '127.0.0.2 two.inside' >>hosts
	near mount --bind hosts /etc/hosts
	# every line made its units
	awk '{ print $1 }' spipetab >names
	while read -r name; do
		inside systemctl is-active -q "spipe-$name.socket" </dev/null
	done <names
}

teardown_file() { systemd_down; }

# section NAME FILE: that section of a manual page
section() {
	awk -v name=".Sh $1" '/^\.Sh /{ on = $0 == name } on' "$2"
}

setup() {
	setup_test
	PAGE=$TESTS/../man/spipe-filters.7
	# for daemons, which run as nobody and cannot read bats' own directory
	DATA=$(mktemp -d "$ROOT/data.XXXXXX")
	chown nobody: "$DATA"
	chmod 755 "$DATA"
}

teardown() {
	[ -z "${CANNOT:-}" ] || return 0
	[ -n "${BATS_TEST_COMPLETED:-}" ] || tail -n 20 "$DATA"/*.log
	systemd_teardown
}

# needs PROGRAM...: skip unless they are installed
needs() {
	local program
	PATH=$PATH:/usr/sbin:/sbin
	for program; do
		command -v "$program" >/dev/null || skip "$program is not installed (make deps GROUPS=uses)"
	done
}

# daemon COMMAND...: start it as nobody in $DATA; what it says is in daemon.log there.
daemon() {
	near_background setpriv --reuid=nobody --regid=nogroup --clear-groups --inh-caps=-all --bounding-set=-all \
		env --chdir="$DATA" HOME="$DATA" TMPDIR="$DATA" "$@" >>"$DATA/daemon.log" 2>&1
}

# as_nobody COMMAND...: the same, and wait for its end
as_nobody() {
	near setpriv --reuid=nobody --regid=nogroup --clear-groups env --chdir="$DATA" HOME="$DATA" TMPDIR="$DATA" "$@" \
		>>"$DATA/daemon.log" 2>&1
}

# listens_on ADDRESS:PORT
listens_on() {
	[ -n "$(near ss -Hltn "src $1")" ]
}

# client COMMAND...: run it in the network, for 60 s at most
client() {
	near timeout -s KILL 60 "$@"
}

# example TEXT: the one command line in the manual page that contains TEXT
example() {
	local line
	line=$(sed -e ':again' -e '/\\e$/{N;s/ *\\e\n */ /;b again' -e '}' "$PAGE" | grep -F -e "$1")
	[ -n "$line" ] && [ "$(wc -l <<<"$line")" -eq 1 ] || return
	echo "$line"
}

# break_tunnel NAME: kill the processes that serve its connections.
break_tunnel() {
	inside pkill -KILL -P "$(inside systemctl show --value -p MainPID "spipe-$1@0.service")"
}

# nginx_server CONFIGURATION: start nginx with this inside its http block
nginx_server() {
	local name
	{
		printf 'daemon off;\npid nginx.pid;\nerror_log stderr error;\nevents { }\nhttp {\naccess_log off;\n'
		for name in client_body proxy fastcgi uwsgi scgi; do
			printf '%s_temp_path %s;\n' "$name" "$name"
		done
		printf '%s\n}\n' "$1"
	} >"$DATA/nginx.conf"
	near_background nginx -p "$DATA" -c nginx.conf -e stderr 2>nginx.err
}

redis() {
	near redis-cli -p "$1" "${@:2}" 2>&1
}

is_replica_of() {
	redis "$1" info replication | grep -q '^master_link_status:up'
}

@test "Redis: a client, and a replica that follows its primary, also after the tunnel has broken" {
	needs redis-server redis-cli
	local replicaof number
	daemon redis-server --port 6379 --bind 127.0.0.1 --save '' --repl-diskless-sync-delay 0
	eventually 10 listens_on 127.0.0.1:6379
	[ "$(redis 6380 set note before)" = OK ]

	read -r _ replicaof < <(example 'replicaof ')
	daemon redis-server --port 6381 --bind 127.0.0.1 --save '' --replicaof "$replicaof"
	eventually 20 is_replica_of 6381
	eventually 10 eval '[ "$(redis 6381 get note)" = before ]'

	# much, in one pipeline
	for number in $(seq 20000); do
		echo "SET key:$number $number:$(printf 'x%.0s' {1..50})"
	done >pipeline
	client redis-cli -p 6380 --pipe <pipeline >piped
	grep -q 'errors: 0, replies: 20000' piped
	eventually 20 eval '[ "$(redis 6381 dbsize)" = 20001 ]'

	break_tunnel redis-in
	[ "$(redis 6379 set note after)" = OK ]
	eventually 30 eval '[ "$(redis 6381 get note)" = after ]'
	# it went on from where it was
	redis 6379 info stats | grep -q '^sync_partial_ok:1'
}

# mail_server NAME: OpenSMTPD with NAME.conf, which needs root, and a spool of its own
mail_server() {
	near_background unshare --mount sh -c '
		mount -t tmpfs -o mode=755 tmpfs /var/spool && mount -t tmpfs -o mode=755 tmpfs /run &&
		mkdir -p -m 711 /var/spool/smtpd && exec smtpd -d -f "$1"' sh "$PWD/$1.conf" >"$DATA/$1.log" 2>&1
}

delivered() {
	[ "$(find "$DATA/inbox/new" -type f 2>/dev/null | wc -l)" -eq "$1" ]
}

@test "mail: OpenSMTPD delivers through the tunnel to another OpenSMTPD" {
	needs smtpd
	mkdir "$DATA/inbox"
	chown nobody: "$DATA/inbox"
	printf 'catch: nobody\n' >"$DATA/catch"
	cat >server.conf <<-END
		listen on 127.0.0.1 port 25
		table users { "@" = nobody }
		action "inbox" maildir "$DATA/inbox" virtual <users>
		match from any for any action "inbox"
	END
	{
		echo 'listen on 127.0.0.1 port 2500'
		section SERVICES "$PAGE" | grep -E '^(action|match) '
	} >client.conf
	[ "$(wc -l <client.conf)" -eq 3 ]
	mail_server server
	mail_server client
	eventually 10 listens_on 127.0.0.1:25
	eventually 10 listens_on 127.0.0.1:2500
	random 3000000 attachment
	client /usr/bin/python3 - <<-'END'
		import email.message, smtplib
		for number in range(5):
		    mail = email.message.EmailMessage()
		    mail["Subject"] = "number %d" % number
		    mail.set_content("hello")
		    if number == 0:
		        mail.add_attachment(open("attachment", "rb").read(), "application", "octet-stream")
		    with smtplib.SMTP("127.0.0.1", 2500) as server:
		        server.send_message(mail, "alice@one.example", "bob@two.example")
	END
	eventually 60 delivered 5
	/usr/bin/python3 - "$DATA/inbox/new" <<-'END'
		import email, email.policy, glob, sys
		mails = [email.message_from_binary_file(open(name, "rb"), policy=email.policy.default)
		         for name in glob.glob(sys.argv[1] + "/*")]
		assert sorted(mail["Subject"] for mail in mails) == ["number %d" % n for n in range(5)]
		attachment = [part.get_content() for mail in mails for part in mail.iter_attachments()]
		assert attachment == [open("attachment", "rb").read()]
	END
}

@test "ssh: a command and a file, with the lines for ssh_config that the page shows" {
	needs sshd ssh
	export HOME=$PWD PATH=$BUILD:$PATH
	mkdir -p .ssh /run/sshd
	cp "$ROOT/etc-spipe/inside.key" .ssh/
	ssh-keygen -q -t ed25519 -N '' -f host
	ssh-keygen -q -t ed25519 -N '' -f user
	near_background "$(command -v sshd)" -D -f /dev/null -p 22 -o ListenAddress=127.0.0.1 -o HostKey="$PWD/host" \
		-o AuthorizedKeysFile="$PWD/user.pub" -o StrictModes=no -o UsePAM=no -o PermitRootLogin=yes -o PidFile=none \
		-E "$DATA/sshd.log"
	eventually 10 listens_on 127.0.0.1:22
	{
		sed -n '/^Host /,/^\.Ed/p' "$PAGE" | sed '/^\.Ed/d'
		printf '\tUserKnownHostsFile %s\n\tIdentityFile %s\n\tBatchMode yes\n' "$PWD/known" "$PWD/user"
	} >config
	[ "$(grep -c 8022 config)" -eq 1 ]
	echo "server.example $(cut -d ' ' -f 1,2 host.pub)" >known
	[ "$(client ssh -F config server.example echo from there)" = 'from there' ]
	random 10000000 file
	client ssh -F config server.example cat <file >back
	cmp file back
}

@test "HTTP: many requests over one connection, each answered promptly, and a WebSocket" {
	needs nginx
	/usr/bin/python3 -c 'import websockets' || skip 'python3-websockets is not installed (make deps GROUPS=uses)'
	# shellcheck disable=SC2016 # the variables are nginx's
	nginx_server '
		keepalive_requests 10000;
		server {
			listen 127.0.0.1:80;
			location / { return 200 "answer to $request_uri\n"; }
			location /socket {
				proxy_pass http://127.0.0.1:8078;
				proxy_http_version 1.1;
				proxy_set_header Upgrade $http_upgrade;
				proxy_set_header Connection upgrade;
			}
		}'
	daemon /usr/bin/python3 "$TESTS/uses/web.py" websocket-server 127.0.0.1 8078
	eventually 10 listens_on 127.0.0.1:80
	eventually 10 listens_on 127.0.0.1:8078
	client /usr/bin/python3 "$TESTS/uses/web.py" requests 127.0.0.1 8081 500
	client /usr/bin/python3 "$TESTS/uses/web.py" websocket 127.0.0.1 8081
}

@test "HTTP: nginx as the client keeps its connections open" {
	needs nginx curl
	nginx_server "log_format connection '\$connection';
		server { listen 127.0.0.1:80; access_log far.log connection; location / { return 200 far\\n; } }
		$(sed -n '/^upstream/,/^\.Ed/p' "$PAGE" | sed '/^\.Ed/d; s/^location/server { listen 127.0.0.1:8082; location/') }"
	eventually 10 listens_on 127.0.0.1:8082
	for _ in $(seq 30); do
		[ "$(client curl -sS --max-time 20 http://127.0.0.1:8082/)" = far ]
	done
	# each over a connection of its own to nginx, and all over one connection, or two, through the tunnel
	eventually 10 has_lines "$DATA/far.log" 30
	[ "$(sort -u "$DATA/far.log" | wc -l)" -le 2 ]
}

# all_reset: break the tunnel; true when each sender has noticed one break
all_reset() {
	break_tunnel metrics-in || true
	[ -e reset.0 ] && [ -e reset.1 ] && [ -e reset.2 ]
}

@test "Graphite: three senders that reconnect, through one line: no value is lost when the tunnel breaks" {
	needs carbon-cache
	cat >"$DATA/carbon.conf" <<-END
		[cache]
		STORAGE_DIR = $DATA
		LOCAL_DATA_DIR = $DATA/whisper
		CONF_DIR = $DATA
		LOG_DIR = $DATA
		PID_DIR = $DATA
		USER =
		MAX_CACHE_SIZE = inf
		MAX_UPDATES_PER_SECOND = inf
		MAX_CREATES_PER_MINUTE = inf
		LINE_RECEIVER_INTERFACE = 127.0.0.1
		LINE_RECEIVER_PORT = 2003
		PICKLE_RECEIVER_INTERFACE = 127.0.0.1
		CACHE_QUERY_INTERFACE = 127.0.0.1
		CARBON_METRIC_INTERVAL = 0
		WHISPER_FALLOCATE_CREATE = False
		ENABLE_TAGS = False
		LOG_LISTENER_CONN_SUCCESS = False
	END
	chmod 644 "$DATA/carbon.conf"
	printf '[all]\npattern = .*\nretentions = 1s:1h\n' >"$DATA/storage-schemas.conf"
	chmod 644 "$DATA/storage-schemas.conf"
	daemon carbon-cache --config="$DATA/carbon.conf" --nodaemon --logdir="$DATA" --pidfile="$DATA/carbon.pid" start
	eventually 20 listens_on 127.0.0.1:2003
	near_background /usr/bin/python3 "$TESTS/uses/graphite.py" send 127.0.0.1 2013 2>send.err
	eventually 40 all_reset
	ended 40 "${pids[-1]}"
	[ "$status" -eq 0 ]
	client /usr/bin/python3 "$TESTS/uses/graphite.py" check "$DATA/whisper"
}

@test "Erlang: two nodes with fixed ports send each other messages, also after the tunnel has broken" {
	needs erl
	local one two
	one=$(example 'erl -name one@') two=$(example 'erl -name two@')
	# Both nodes are on this machine, and only one of them can have the address of the example.
	[[ $one == *'{127,0,0,1}'* ]]
	one=${one/'{127,0,0,1}'/'{127,0,0,9}'}
	export ERL_CRASH_DUMP=/dev/null HOME=$PWD
	cat >echo.erl <<-'END'
		-module(echo).
		-export([serve/0, call/1]).
		serve() ->
		    register(echo, self()),
		    loop().
		loop() ->
		    receive {From, Message} -> From ! {answer, Message} end,
		    loop().
		%% Send messages, and have the other node start processes here that send some too.
		call(Count) ->
		    Node = 'two@two.inside',
		    connect(Node, 100),
		    Big = binary:copy(<<"0123456789">>, 100000),
		    [begin {echo, Node} ! {self(), {N, Big}}, receive {answer, {N, Big}} -> ok after 20000 -> halt(3) end end
		        || N <- lists:seq(1, Count)],
		    Self = self(),
		    Here = node(),
		    spawn(Node, erlang, apply, [fun() -> spawn(Here, erlang, send, [Self, {from, node()}]) end, []]),
		    receive {from, Node} -> ok after 20000 -> halt(4) end.
		connect(_, 0) -> halt(2);
		connect(Node, Tries) ->
		    case net_kernel:connect_node(Node) of
		        true -> ok;
		        _ -> timer:sleep(100), connect(Node, Tries - 1)
		    end.
	END
	erlc echo.erl
	near_background bash -c "exec $two -noinput -eval 'echo:serve().'" >two.out 2>two.err
	near_background bash -c "exec $one -noinput -eval '
		echo:call(20), file:write_file(\"first\", \"\"), monitor_node(list_to_atom(\"two@two.inside\"), true),
		receive {nodedown, _} -> ok after 30000 -> halt(5) end,
		echo:call(20), halt(0).'" >one.out 2>one.err
	eventually 30 test -e first
	break_tunnel actors-in
	ended 40 "${pids[-1]}"
	cat one.out one.err
	[ "$status" -eq 0 ]
}

@test "a BMC: its web interface over TLS, and a serial console" {
	needs nginx ser2net socat openssl curl
	# the controller
	openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=bmc.example \
		-addext subjectAltName=DNS:bmc.example -keyout "$DATA/tls.key" -out "$DATA/tls.pem" 2>openssl.err
	nginx_server 'server {
		listen 192.0.2.10:443 ssl; ssl_certificate tls.pem; ssl_certificate_key tls.key;
		location / { return 200 "power is on\n"; }
	}'
	near_background socat "PTY,link=$DATA/tty,rawer,mode=666" EXEC:'tr a-z A-Z,pty,rawer' 2>tty.err
	eventually 10 test -e "$DATA/tty"
	cat >"$DATA/ser2net.yaml" <<-END
		%YAML 1.1
		---
		connection: &console
		  accepter: tcp,192.0.2.10,2200
		  connector: serialdev,$DATA/tty,115200n81,local
	END
	near_background ser2net -n -d -c "$DATA/ser2net.yaml" -P "$DATA/ser2net.pid" >"$DATA/ser2net.log" 2>&1
	eventually 10 listens_on 192.0.2.10:443
	eventually 10 listens_on 192.0.2.10:2200

	[ "$(client curl -sS --cacert "$DATA/tls.pem" --connect-to bmc.example:443:127.0.0.1:8444 \
		https://bmc.example/)" = 'power is on' ]
	mkfifo typed
	exec 9<>typed
	near_background nc 127.0.0.1 2200 <typed >console 2>console.err
	echo 'login: root' >&9
	eventually 20 grep -q 'LOGIN: ROOT' console
	exec 9>&-
	# its tunnel can reach nothing else
	inside systemctl show -p IPAddressAllow spipe-bmc-web-in@0.service | grep -q 192.0.2.10
}

@test "PostgreSQL: rows in both directions, and the cancellation of a query" {
	local bin psql
	bin=$(find /usr/lib/postgresql/*/bin -maxdepth 0 | tail -n 1)
	[ -n "$bin" ] || skip 'postgresql is not installed (make deps GROUPS=uses)'
	as_nobody "$bin/initdb" -D "$DATA/db" -U postgres -A trust --no-sync
	daemon "$bin/postgres" -D "$DATA/db" -h 127.0.0.1 -p 5432 -k "$DATA" -F
	eventually 30 near "$bin/pg_isready" -q -h 127.0.0.1 -p 5432
	psql=$(example 'psql "host')
	psql="$psql -U postgres -X -q -At -v ON_ERROR_STOP=1"
	seq 200000 >rows
	client bash -c "$psql -c 'CREATE TABLE numbers (n int)'"
	client bash -c "$psql -c 'COPY numbers FROM STDIN'" <rows
	client bash -c "$psql -c 'COPY (SELECT n FROM numbers ORDER BY n) TO STDOUT'" >back
	cmp rows back
	# psql connects a second time to cancel
	near_background bash -c "exec $psql -c 'SELECT pg_sleep(1000)'" 2>cancel.err
	eventually 20 eval 'near bash -c "$psql -c \"SELECT query FROM pg_stat_activity\"" | grep -q "^SELECT pg_sleep"'
	kill -INT "${pids[-1]}"
	ended 20 "${pids[-1]}"
	grep -q 'canceling statement due to user request' cancel.err
}

@test "MariaDB: rows in both directions" {
	needs mariadbd mariadb mariadb-install-db
	local mariadb
	as_nobody mariadb-install-db --no-defaults --datadir="$DATA/db" --auth-root-authentication-method=normal \
		--skip-test-db
	daemon mariadbd --no-defaults --datadir="$DATA/db" --socket="$DATA/sock" --pid-file="$DATA/pid" \
		--bind-address=127.0.0.1 --port=3306
	mariadb=$(example 'mariadb -h')
	mariadb=${mariadb/mariadb /mariadb --no-defaults -u root -N --local-infile=1 }
	eventually 30 listens_on 127.0.0.1:3306
	seq 200000 >rows
	client bash -c "$mariadb" <<-END
		CREATE DATABASE test;
		CREATE TABLE test.numbers (n INT PRIMARY KEY);
		LOAD DATA LOCAL INFILE '$PWD/rows' INTO TABLE test.numbers;
	END
	client bash -c "$mariadb -e 'SELECT n FROM test.numbers ORDER BY n'" >back
	cmp rows back
}
