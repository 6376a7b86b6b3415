/*
 * A table of tunnels. Whatever it says, the units made of it hold only settings that the generator means to
 * write, one a line, and every file is where it belongs.
 */

#include <fcntl.h>
#include <ftw.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../../units/table.h"
#include "../../units/units.h"
#include "fuzz.h"

static const char *const settings[] = {
	"Description",
	"Documentation",
	"SourcePath",
	"Slice",
	"ListenStream",
	"SocketMode",
	"SocketUser",
	"SocketGroup",
	"RemoveOnStop",
	"FreeBind",
	"DeferAcceptSec",
	"MaxConnectionsPerSource",
	"IPAddressDeny",
	"IPAddressAllow",
	"Accept",
	"MaxConnections",
	"TriggerLimitIntervalSec",
	"PollLimitIntervalSec",
	"Service",
	"Sockets",
	"Wants",
	"After",
	"PartOf",
	"StartLimitIntervalSec",
	"Restart",
	"RestartSec",
	"ExecReload",
	"ExecStopPre",
	"ExecStartPre",
	"ExecStartPost",
	"StartLimitBurst",
	"Unit",
	"PathChanged",
	"Type",
	"LoadCredential",
	"LoadCredentialEncrypted",
	"SetCredential",
	"ExecStart",
	"User",
	"Group",
	"SupplementaryGroups",
	"PrivateNetwork",
	"RestrictAddressFamilies",
	"BindReadOnlyPaths",
	"RootDirectory",
	"SocketBindAllow",
	"RootDirectory",
	"MemoryMax",
	"TasksMax",
	"LimitNOFILE",
	"TemporaryFileSystem",
	"ReadOnlyPaths",
	"ProtectKernelTunables",
	"ProtectHostname",
	"RestrictSUIDSGID",
	"PrivateTmp",
	"RemoveIPC",
};

static void check_setting(const char *line)
{
	const char *equals = strchr(line, '=');
	size_t length;

	CHECK(equals != NULL);
	length = (size_t)(equals - line);
	for (size_t i = 0; i < sizeof(settings) / sizeof(settings[0]); i++)
		if (strlen(settings[i]) == length && strncmp(line, settings[i], length) == 0)
			goto known;
	CHECK(!"a known setting");
known:
	CHECK(line[strlen(line) - 1] != '\\');
	if (strncmp(line, "ExecStart=", 10) == 0 && equals[1] != '\0' &&
	    strcmp(equals + 1, "false") != 0)
		CHECK(equals[1] == '/' && strstr(equals, "/spipe-") != NULL);
	if (strncmp(line, "Type=", 5) == 0)
		CHECK(strcmp(equals + 1, "notify") == 0);
}

static void check_unit(const char *path)
{
	static char line[4 * 4096];
	FILE *unit = fopen(path, "r");

	CHECK(unit != NULL);
	while (fgets(line, sizeof(line), unit) != NULL) {
		size_t length = strcspn(line, "\n");

		CHECK(line[length] == '\n' && line[length + 1] == '\0');
		line[length] = '\0';
		for (size_t i = 0; i < length; i++)
			CHECK((unsigned char)line[i] < 127 && (line[i] >= ' ' || line[i] == '\t'));
		if (line[0] == '\0' || line[0] == '#')
			continue;
		if (line[0] == '[')
			CHECK(strcmp(line, "[Unit]") == 0 || strcmp(line, "[Socket]") == 0 ||
			    strcmp(line, "[Service]") == 0 || strcmp(line, "[Path]") == 0);
		else
			check_setting(line);
	}
	CHECK(ferror(unit) == 0);
	fclose(unit);
}

static char root[64];

static int visit(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	const char *name = path + ftw->base;

	(void)st;
	if (ftw->level == 0)
		return 0;
	CHECK(ftw->level <= 2);
	CHECK(strncmp(name, "spipe-", 6) == 0 || strncmp(name, "spipetab-line-", 14) == 0 ||
	    strcmp(name, "sockets.target.wants") == 0 || strncmp(name, "renew-spipe-", 12) == 0 ||
	    strcmp(name, "20-exec.conf") == 0 || strcmp(name, "20-exit-idle.conf") == 0);
	if (type == FTW_F)
		check_unit(path);
	CHECK(remove(path) == 0);
	return 0;
}

static void leave(void)
{
	rmdir(root);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static int dir = -1;
	struct tunnel tunnel;
	struct table table;
	enum table_result found;
	FILE *file;

	if (dir == -1) {
		snprintf(root, sizeof(root), "%s/spipetab.XXXXXX",
		    access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/var/tmp");
		CHECK(mkdtemp(root) != NULL);
		atexit(leave);
		dir = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		CHECK(dir != -1);
	}
	if (size == 0)
		return 0;
	file = fmemopen((void *)data, size, "r");
	CHECK(file != NULL);
	table_from(&table, file);
	do {
		struct outcome outcome = { 0 };

		found = table_next(&table, &tunnel, &outcome);
		if (found == TABLE_WRONG)
			units_write_wrong(dir, &tunnel, outcome.reason);
		if (found == TABLE_TUNNEL &&
		    units_write(dir, &tunnel, "/etc/spipetab", &outcome) != 0)
			CHECK(outcome.status == EX_CANTCREAT);
		CHECK((found == TABLE_WRONG) <= (outcome.status != 0 && outcome.reason[0] != '\0'));
	} while (found != TABLE_END);
	table_close(&table);
	CHECK(nftw(root, visit, 8, FTW_DEPTH | FTW_PHYS) == 0);
	return 0;
}
