#!/usr/bin/env bats
# make deps: what it leaves of the daemons that its packages bring. With a package manager that only pretends.

load ../helpers/lib

@test "deps: daemons that it brings are disabled, those that were here before are left alone" {
	mkdir bin
	export PATH=$PWD/bin:$PATH STATE=$PWD
	echo ssh.service >units
	cat >bin/dpkg-query <<-'END'
		#!/bin/sh
		exit 1
	END
	cat >bin/apt-get <<-'END'
		#!/bin/sh
		echo "$*" >>"$STATE/apt"
		printf '%s\n' nginx.service redis-server.service >>"$STATE/units"
	END
	cat >bin/systemctl <<-'END'
		#!/bin/sh
		echo "$*" >>"$STATE/calls"
		case $1 in
		is-enabled) grep -qx "$2" "$STATE/units" && echo enabled ;;
		esac
	END
	printf '#!/bin/sh\nexec "$@"\n' >bin/sudo
	chmod +x bin/*
	"$TESTS/tools/deps" demo
	grep -q 'install .*redis-server' apt
	grep ' disable ' calls | sort >disabled
	diff disabled - <<-'END'
		--quiet disable nginx.service
		--quiet disable redis-server.service
	END
	# also when the packages cannot be had
	rm calls
	echo ssh.service >units
	sed -i '$aexit 100' bin/apt-get
	run ! "$TESTS/tools/deps" demo
	[ "$(grep -c ' disable ' calls)" -eq 2 ]
}
