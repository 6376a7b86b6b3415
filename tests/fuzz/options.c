/* Command lines. Input: the role, then arguments that end in NUL. */

#include <fcntl.h>
#include <stdbool.h>
#include <unistd.h>

#include "../../common/address.h"
#include "../../common/options.h"
#include "../../common/wait.h"
#include "fuzz.h"

#define ARGUMENTS 48

/* What -t or, if `local`, -b was given is an address. */
static bool is_address(const char *text, bool local)
{
	struct address_text address;

	return (local ? address_split_local(&address, text)
		      : address_split(&address, text, false)) == NULL;
}

static void check_listener(const struct options *o, enum role role)
{
	CHECK(o->limits.connections >= 1 && o->limits.connections <= 65535);
	CHECK(o->limits.exit_idle >= 0 && o->limits.exit_idle <= 1000000000 * SECOND);
	if (role == ROLE_ENC)
		CHECK(o->limits.strangers == 0);
	else
		CHECK(o->limits.strangers >= 1 && o->limits.strangers <= 65535);
	CHECK(o->limits.per_source >= 1 && o->limits.per_source <= 65535);
	CHECK(
	    o->for_listener != NULL || (o->limits.connections == 200 && o->limits.exit_idle == 0));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };
	enum role role = take_byte(&in) & 1 ? ROLE_DEC : ROLE_ENC;
	char *argv[ARGUMENTS + 2], text[300], program[] = "spipe", *given[ARGUMENTS];
	struct outcome outcome = { 0 };
	struct options o;
	int argc = 1, result, out, null;

	argv[0] = program;
	while (argc <= ARGUMENTS && in.left > 0) {
		given[argc - 1] = argv[argc] = strdup(take_text(&in, text, sizeof(text)));
		argc++;
	}
	argv[argc] = NULL;
	fflush(stdout);
	out = dup(STDOUT_FILENO);
	null = open("/dev/null", O_WRONLY); /* for --help and --version */
	dup2(null, STDOUT_FILENO);
	close(null);
	result = options_parse(&o, role, argc, argv, &outcome);
	fflush(stdout);
	dup2(out, STDOUT_FILENO);
	close(out);
	if (result != 0) {
		CHECK(outcome.status == 64 && outcome.reason[0] != '\0');
	} else if (!o.shown) {
		CHECK(outcome.status == 0);
		CHECK(o.key_count > 0 || o.key_dir != NULL);
		CHECK(role == ROLE_DEC || (o.key_count == 1 && o.key_dir == NULL));
		for (size_t i = 0; i < o.key_count; i++)
			CHECK(o.keys[i] != NULL);
		CHECK(o.timeout > 0 && o.timeout <= 1000000000 * SECOND);
		CHECK(o.idle >= 0 && o.idle <= 1000000000 * SECOND);
		CHECK(o.linger >= 0 && o.linger <= 1000000000 * SECOND);
		CHECK(!(o.no_pfs && o.require_pfs) && !(o.fd_pass && o.command == NULL));
		CHECK(o.target == NULL || is_address(o.target, false));
		CHECK(o.target == NULL || (o.command == NULL && !o.fd_pass));
		CHECK(o.bind == NULL || (o.command == NULL && is_address(o.bind, true)));
		check_listener(&o, role);
		CHECK(o.proxy_version >= 0 && o.proxy_version <= 2);
		CHECK(o.command == NULL || (o.command > argv && o.command < argv + argc));
	}
	free((void *)o.keys);
	for (int i = 0; i < argc - 1; i++)
		free(given[i]);
	return 0;
}
