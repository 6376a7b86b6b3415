# spipe-filters, for GNU make. The variables that a packager may set come first.

# make deps installs packages while this file is read, because what is installed decides how the programs
# are built: make deps check is the same as make deps, then make check.
ifneq ($(filter deps,$(MAKECMDGOALS)),)
$(shell tests/tools/deps $(GROUPS) >&2)
ifneq ($(.SHELLSTATUS),0)
$(error make deps failed)
endif
endif

VERSION = 1.0.0
PREFIX ?= /usr/local
BINDIR ?= $(PREFIX)/bin
MANDIR ?= $(PREFIX)/share/man
DESTDIR ?=
BUILD ?= build
CFLAGS ?= -O2 -g
INSTALL ?= install

WITH_SYSTEMD ?= $(if $(wildcard /lib/systemd/systemd /usr/lib/systemd/systemd),yes,no)
# Several packets at the same time in bulk transfers: Intel's static library, for x86-64.
WITH_IPSEC_MB ?= $(shell $(CC) -dumpmachine | grep -q '^x86_64' && \
	$(CC) -E -include intel-ipsec-mb.h -x c /dev/null >/dev/null 2>&1 && \
	test -e "$$($(CC) -print-file-name=libIPSec_MB.a)" && echo yes || echo no)
STATIC ?= no         # half the start-up time; the linker's warnings are harmless
SANDBOX ?= yes       # no: only for valgrind and gcov
SANITIZE ?= no       # AddressSanitizer and UndefinedBehaviorSanitizer
WERROR ?= no
# Packagers have their own value of _FORTIFY_SOURCE in CPPFLAGS. AddressSanitizer sees more without it.
CPPFLAGS ?= $(if $(call yes,$(SANITIZE)),,-U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2)

UNITDIR ?= $(PREFIX)/lib/systemd/system
CATALOGDIR ?= $(PREFIX)/lib/systemd/catalog
GENERATORDIR ?= $(PREFIX)/lib/systemd/system-generators
LIBDIR ?= $(PREFIX)/lib/spipe-filters# what only units and completions run
ROOTDIR ?= $(PREFIX)/lib/spipe-filters/root# the empty root directory of the services
DOCDIR ?= $(PREFIX)/share/doc/spipe-filters# examples for fail2ban and nftables
BASHDIR ?= $(PREFIX)/share/bash-completion/completions
ZSHDIR ?= $(PREFIX)/share/zsh/site-functions
FISHDIR ?= $(PREFIX)/share/fish/vendor_completions.d
XINETDDIR ?= $(PREFIX)/share/doc/spipe-filters/xinetd

yes = $(filter yes,$(strip $(1)))

# 64 bits for times and file sizes, on 32-bit systems too.
flags = -std=gnu11 -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -D_TIME_BITS=64 -DSPIPE_VERSION='"$(VERSION)"' \
	-Icommon -MMD -MP \
	-Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith \
	-Wwrite-strings -Wformat=2 -fstack-protector-strong $(zero_registers)
link = -Wl,-z,relro,-z,now,-z,noexecstack
libs = -lcrypto

# Clear registers that held secrets at each return, if the compiler can.
zero_registers := $(shell echo | $(CC) -fzero-call-used-regs=used-gpr -E - >/dev/null 2>&1 && \
	echo -fzero-call-used-regs=used-gpr)

ifneq ($(call yes,$(WITH_SYSTEMD)),)
flags += -DWITH_SYSTEMD
endif
ifneq ($(call yes,$(WERROR)),)
flags += -Werror
endif
ifneq ($(call yes,$(SANDBOX)),yes)
flags += -DNO_SANDBOX
endif
ifneq ($(call yes,$(SANITIZE)),)
flags += -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
endif
ifneq ($(call yes,$(STATIC)),)
link += -static
else
flags += -fPIE
link += -pie
endif
ifneq ($(call yes,$(WITH_IPSEC_MB)),)
flags += -DWITH_IPSEC_MB
libs += -l:libIPSec_MB.a # static: otherwise every connection would take the time to load it
sources := $(wildcard common/*.c)
else
sources := $(filter-out common/packet-ipsec-mb.c,$(wildcard common/*.c))
endif

common := $(sources:%.c=$(BUILD)/%.o)
programs := $(BUILD)/spipe-enc $(BUILD)/spipe-dec
ifneq ($(call yes,$(WITH_SYSTEMD)),)
programs += $(BUILD)/spipe-generator $(BUILD)/spipectl
endif

all: $(programs)

$(BUILD)/spipe-enc $(BUILD)/spipe-dec: $(BUILD)/%: $(BUILD)/filters/%.o $(common)
	$(CC) $(flags) $(CFLAGS) $(link) $(LDFLAGS) -o $@ $^ $(libs) $(LDLIBS)

# It runs at boot without our environment, so the path that it writes into units is built in.
$(BUILD)/units/units.o: flags += -DBINDIR='"$(BINDIR)"'

$(BUILD)/units/units.o: $(BUILD)/paths

generator := $(patsubst %,$(BUILD)/%.o,units/table units/units common/address common/outcome common/parse)

$(BUILD)/spipe-generator: $(BUILD)/units/spipe-generator.o $(generator)
	$(CC) $(flags) $(CFLAGS) $(link) $(LDFLAGS) -o $@ $^ $(LDLIBS)

ctl := $(patsubst %.c,$(BUILD)/%.o,$(wildcard units/ctl-*.c) units/table.c units/units.c)

$(BUILD)/spipectl: $(BUILD)/units/spipectl.o $(ctl) $(common)
	$(CC) $(flags) $(CFLAGS) $(link) $(LDFLAGS) -o $@ $^ $(libs) $(LDLIBS)

$(BUILD)/%.o: %.c $(BUILD)/flags
	@mkdir -p $(@D)
	$(CC) $(flags) $(CPPFLAGS) $(CFLAGS) -c -o $@ $<

# Rebuild when the compiler or a flag has changed.
$(BUILD)/flags: FORCE
	@mkdir -p $(@D)
	@echo '$(CC) $(flags) $(CPPFLAGS) $(CFLAGS) $(link)' | cmp -s - $@ || \
		echo '$(CC) $(flags) $(CPPFLAGS) $(CFLAGS) $(link)' >$@

# Rebuild the generator when that path has changed.
$(BUILD)/paths: FORCE
	@mkdir -p $(@D)
	@echo '$(BINDIR)' | cmp -s - $@ || echo '$(BINDIR)' >$@

# Programs and units may be started in any directory.
ifneq ($(filter install uninstall,$(MAKECMDGOALS)),)
$(foreach name,PREFIX BINDIR MANDIR UNITDIR CATALOGDIR GENERATORDIR LIBDIR ROOTDIR BASHDIR ZSHDIR FISHDIR DOCDIR XINETDDIR,$(if $(filter-out /%,$($(name))),\
	$(error $(name) must be an absolute path, not $($(name)))))
endif

# Programs that tests run. They are linked with the code of the filters.
$(BUILD)/tests/%: $(BUILD)/tests/%.o $(common)
	$(CC) $(flags) $(CFLAGS) $(link) $(LDFLAGS) -o $@ $^ $(libs) $(LDLIBS)

$(BUILD)/tests/fuzz/spipetab: $(generator)

# What tests/suites/*.bats run of our own code.
unit := $(patsubst %.c,$(BUILD)/%,$(filter-out tests/unit/ctgrind.c,$(wildcard tests/unit/*.c)))

check: all $(unit)
	BUILD=$(BUILD) tests/check

check-long: all $(unit)
	BUILD=$(BUILD) tests/check-long

check-uses: all
	BUILD=$(BUILD) JOBS=1 tests/check tests/uses/*.bats

demo: all
	BUILD=$(BUILD) tests/tools/demo

deps: # done above; with names of groups: make deps GROUPS="build check lint bench fuzz"
	@:

bench: all
	BUILD=$(BUILD) BENCH=$(BENCH) tests/bench/run

lint:
	tests/tools/lint

fuzz:
	FUZZ_SECONDS=$(FUZZ_SECONDS) tests/fuzz/run

coverage:
	tests/tools/coverage

mutants:
	tests/mutants/run

# Of the last commit, always the same bytes.
tarball := $(BUILD)/spipe-filters-$(VERSION).tar.gz
dist:
	@mkdir -p $(BUILD)
	packaging/dist $(tarball)

# Debian packages, in $(BUILD)/deb.
deb: dist
	packaging/deb $(VERSION) $(tarball) $(BUILD)/deb

# Is everything there for a release? Prints the checksum of the tarball.
release-check: dist
	packaging/release-check $(VERSION) $(tarball)

# The manual pages for a web site, in $(BUILD)/html. mandoc links to the pages that it finds beside them, and sends
# the reader to manpages.debian.org for others.
html:
	rm -rf $(BUILD)/html && mkdir -p $(BUILD)/html && cp man/*.[1578] $(BUILD)/html
	cd $(BUILD)/html && for page in *.[1578]; do mandoc -T html \
		-O 'man=%N.%S.html;https://manpages.debian.org/%N.%S' $$page >$$page.html || exit 1; done
	rm $(BUILD)/html/*.[1578]

examples := $(wildcard fail2ban/*/*.conf nftables/*.nft)
units := $(notdir $(wildcard units/*.socket units/*.service units/*.slice units/*.path units/*.timer))
place = sed -e 's|@ROOTDIR@|$(ROOTDIR)|g' -e 's|@LIBDIR@|$(LIBDIR)|g' -e 's|@BINDIR@|$(BINDIR)|g'
# The manual pages contain the default paths, because they are read in the source tree, too.
page = sed -e 's|/usr/local/bin|$(BINDIR)|g' -e 's|/usr/local/lib/systemd/system-generators|$(GENERATORDIR)|g' \
	-e 's|/usr/local/share/doc/spipe-filters/xinetd|$(XINETDDIR)|g' -e 's|/usr/local/share/doc/spipe-filters|$(DOCDIR)|g'
# $(call pages,SECTION): its manual pages; spipe-dec.1 is a link.
pages = for page in $(notdir $(wildcard man/*.$(1))); do \
	if [ -L man/$$page ]; then \
		ln -sf "$$(readlink man/$$page)" $(DESTDIR)$(MANDIR)/man$(1)/$$page || exit 1; continue; fi; \
	$(page) man/$$page >$(DESTDIR)$(MANDIR)/man$(1)/$$page && \
	chmod 644 $(DESTDIR)$(MANDIR)/man$(1)/$$page || exit 1; done
# $(call completion,SHELL,FILE)
completion = $(INSTALL) -d $(DESTDIR)$(dir $(2)) && $(place) completions/spipe.$(1) >$(DESTDIR)$(2) && \
	chmod 644 $(DESTDIR)$(2)

install: all
	$(INSTALL) -d $(DESTDIR)$(BINDIR) $(DESTDIR)$(MANDIR)/man1 $(DESTDIR)$(MANDIR)/man7
	$(INSTALL) $(BUILD)/spipe-enc $(BUILD)/spipe-dec $(DESTDIR)$(BINDIR)
	$(call pages,1)
	$(call pages,7)
	$(INSTALL) -d $(DESTDIR)$(LIBDIR)
	$(INSTALL) completions/complete $(DESTDIR)$(LIBDIR)
	$(call completion,bash,$(BASHDIR)/spipe-enc)
	$(call completion,zsh,$(ZSHDIR)/_spipe)
	$(call completion,fish,$(FISHDIR)/spipe-enc.fish)
	for name in spipe-dec spipectl; do \
		ln -sf spipe-enc $(DESTDIR)$(BASHDIR)/$$name && \
		ln -sf spipe-enc.fish $(DESTDIR)$(FISHDIR)/$$name.fish || exit 1; done
	$(INSTALL) -d $(DESTDIR)$(XINETDDIR)
	for file in $(notdir $(wildcard xinetd/*)); do \
		$(place) xinetd/$$file >$(DESTDIR)$(XINETDDIR)/$$file && \
		chmod 644 $(DESTDIR)$(XINETDDIR)/$$file || exit 1; done
	for file in $(examples); do $(INSTALL) -D -m 644 $$file $(DESTDIR)$(DOCDIR)/$$file || exit 1; done
ifneq ($(call yes,$(WITH_SYSTEMD)),)
	$(INSTALL) -d $(DESTDIR)$(UNITDIR)/spipe-.service.d $(DESTDIR)$(GENERATORDIR) \
		$(DESTDIR)$(MANDIR)/man5 $(DESTDIR)$(MANDIR)/man8
	for file in $(units); do \
		$(place) units/$$file >$(DESTDIR)$(UNITDIR)/$$file && \
		chmod 644 $(DESTDIR)$(UNITDIR)/$$file || exit 1; done
	$(place) units/hardening.conf >$(DESTDIR)$(UNITDIR)/spipe-.service.d/10-hardening.conf
	chmod 644 $(DESTDIR)$(UNITDIR)/spipe-.service.d/10-hardening.conf
	$(INSTALL) $(BUILD)/spipe-generator $(DESTDIR)$(GENERATORDIR)
	$(INSTALL) $(BUILD)/spipectl $(DESTDIR)$(BINDIR)
	$(INSTALL) units/renew $(DESTDIR)$(LIBDIR)
	$(INSTALL) -d $(DESTDIR)$(CATALOGDIR)
	$(INSTALL) -m 644 units/spipe-filters.catalog $(DESTDIR)$(CATALOGDIR)
	units/make-root $(DESTDIR)$(ROOTDIR)
	$(call pages,5)
	$(call pages,8)
else
	@echo 'install: built without systemd, so no units, no generator and no spipetab(5)'
endif

uninstall:
	rm -f $(DESTDIR)$(BINDIR)/spipe-enc $(DESTDIR)$(BINDIR)/spipe-dec $(DESTDIR)$(BINDIR)/spipectl
	rm -f $(patsubst man/%,$(DESTDIR)$(MANDIR)/man1/%,$(wildcard man/*.1))
	rm -f $(patsubst man/%,$(DESTDIR)$(MANDIR)/man5/%,$(wildcard man/*.5))
	rm -f $(patsubst man/%,$(DESTDIR)$(MANDIR)/man7/%,$(wildcard man/*.7))
	rm -f $(patsubst man/%,$(DESTDIR)$(MANDIR)/man8/%,$(wildcard man/*.8))
	rm -f $(addprefix $(DESTDIR)$(DOCDIR)/,$(examples))
	rm -f $(patsubst xinetd/%,$(DESTDIR)$(XINETDDIR)/%,$(wildcard xinetd/*))
	rm -f $(DESTDIR)$(LIBDIR)/complete $(DESTDIR)$(ZSHDIR)/_spipe
	for name in spipe-enc spipe-dec spipectl; do \
		rm -f $(DESTDIR)$(BASHDIR)/$$name $(DESTDIR)$(FISHDIR)/$$name.fish; done
	rm -f $(DESTDIR)$(GENERATORDIR)/spipe-generator
	rm -f $(addprefix $(DESTDIR)$(UNITDIR)/,$(units))
	rm -f $(DESTDIR)$(UNITDIR)/spipe-.service.d/10-hardening.conf
	rm -f $(DESTDIR)$(LIBDIR)/renew $(DESTDIR)$(CATALOGDIR)/spipe-filters.catalog
	units/make-root -r $(DESTDIR)$(ROOTDIR)
	-rmdir $(DESTDIR)$(UNITDIR)/spipe-.service.d $(dir $(DESTDIR)$(ROOTDIR)) \
		$(sort $(addprefix $(DESTDIR)$(DOCDIR)/,$(dir $(examples)))) $(DESTDIR)$(DOCDIR)/fail2ban \
		$(DESTDIR)$(CATALOGDIR) $(DESTDIR)$(LIBDIR) $(DESTDIR)$(XINETDDIR) $(dir $(DESTDIR)$(XINETDDIR)) 2>/dev/null

clean:
	rm -rf $(BUILD) $(BUILD)-*

FORCE:
.PHONY: all check check-long check-uses demo deps bench lint fuzz coverage mutants dist deb release-check html install uninstall clean FORCE
.SECONDARY:
-include $(wildcard $(BUILD)/*/*.d $(BUILD)/*/*/*.d)
