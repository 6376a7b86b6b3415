#!/usr/bin/env bats
# make deps: the daemons that its packages bring are disabled, and make builds with what has been installed. The package
# manager is a fake.

load ../helpers/lib

@test "deps: daemons that it installs are disabled, those that were here before are left alone" {
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

@test "deps: make sees what was installed, and builds nothing without it" {
	unset MAKEFLAGS MFLAGS MAKEOVERRIDES WITH_IPSEC_MB
	mkdir -p tests/tools common
	cp "$TESTS/../Makefile" .
	touch common/crypto.c
	cat >cc <<-'END'
		#!/bin/sh
		case $* in
		-dumpmachine) echo x86_64-linux-gnu ;;
		-print-file-name=* | *intel-ipsec-mb.h*) echo "$PWD/installed"; [ -e installed ] ;;
		esac
	END
	printf '#!/bin/sh\necho "$*" >installed\n' >tests/tools/deps
	chmod +x cc tests/tools/deps
	compile=(make BUILD=b CC="$PWD/cc" GROUPS='build lint' b/common/crypto.o)
	"${compile[@]}" >before
	not grep -q -e -DWITH_IPSEC_MB before
	"${compile[@]}" deps >after
	grep -q -e -DWITH_IPSEC_MB after
	[ "$(cat installed)" = 'build lint' ]
	printf '#!/bin/sh\nexit 69\n' >tests/tools/deps
	not "${compile[@]}" -B deps >failed 2>err
	not grep crypto failed
	grep -q 'make deps failed' err
}
