#ifndef SPIPE_TABLE_H
#define SPIPE_TABLE_H

#include <stdbool.h>
#include <stdio.h>

#include "address.h"
#include "options.h"
#include "outcome.h"

/*
 * The table of tunnels, spipetab(5): one line per tunnel,
 *
 *	NAME ROLE LISTEN TARGET KEY [OPTIONS]
 *
 * Every field is checked against a small set of characters, so that no value can mean anything
 * else in a unit file than what it means here.
 */

#define TABLE_LINE 4096     /* a line is shorter, in bytes */
#define TABLE_PATH_SIZE 512 /* of the path of a key */
#define TABLE_KEYS 16       /* most keys of a tunnel */
#define TABLE_NETWORKS 32   /* most networks that may connect to it */

struct tunnel_key {
	bool directory; /* every file in it is a key */
	char path[TABLE_PATH_SIZE];
	const char *name; /* the last part of the path */
};

/* In the order in which the program gets those that are its own. */
enum tunnel_option {
	TUNNEL_PFS,
	TUNNEL_KEEPALIVE,
	TUNNEL_TIMEOUT,
	TUNNEL_IDLE,
	TUNNEL_LINGER,
	TUNNEL_PROXY,
	TUNNEL_SANDBOX,
	TUNNEL_FDPASS,
	TUNNEL_BIND,
	TUNNEL_NETWORK,
	TUNNEL_RUNAS,
	TUNNEL_SUPGROUP,
	TUNNEL_ENCRYPTED,
	TUNNEL_ACCEPT,
	TUNNEL_MAXCONN,
	TUNNEL_STRANGERS,
	TUNNEL_PERSOURCE,
	TUNNEL_EXIT_IDLE,
	TUNNEL_NODEFER,
	TUNNEL_MODE,
	TUNNEL_USER,
	TUNNEL_GROUP,
	TUNNEL_NOAUTO,
	TUNNEL_OPTIONS
};

/*
 * One line, checked. The strings belong to the table and last until the next call of table_next. Of a
 * wrong line, only these are meant to be used: `line`; `name`, NULL unless it is valid; `listens`, and
 * `listen` if that is true.
 */
struct tunnel {
	unsigned line;
	const char *name;
	enum role role;
	bool listens;               /* listen is valid */
	struct address_text listen; /* TCP: host is "" for all addresses */
	struct address_text target; /* unused where there is a command */
	const char *command;        /* of exec:, words with blanks in between; NULL: none */
	struct tunnel_key keys[TABLE_KEYS];
	int key_count;
	const char *networks[TABLE_NETWORKS];
	int network_count;
	const char *option[TUNNEL_OPTIONS]; /* the value, "" if it takes none; NULL: not given */
};

struct table {
	FILE *file;
	unsigned line; /* the last one read, from 1 */
	bool failed;   /* the file cannot be read */
	char text[TABLE_LINE + 1];
	struct place *places; /* what the valid lines above have taken */
	size_t place_count;
};

enum table_result { TABLE_END, TABLE_TUNNEL, TABLE_WRONG };

/* Open the table at `path`. Returns 0, or -1 with the outcome (66) set, and errno. */
int table_open(struct table *, const char *path, struct outcome *);

/* Read the table from `file`, which table_close closes. */
void table_from(struct table *, FILE *file);

/*
 * Read the next line that describes a tunnel. TABLE_WRONG: the outcome (65, 71, or 74 if the file cannot
 * be read) says what is wrong with line table->line; the lines that follow can still be read.
 */
enum table_result table_next(struct table *, struct tunnel *, struct outcome *);

/* Close the file, and free what the table holds. */
void table_close(struct table *);

/* Write an address of the table as `127.0.0.1:80`, `[::1]:80`, `80`, `/path` or `vsock:3:80`. */
void tunnel_format_address(const struct address_text *, char *text, size_t size);

/* The number that an option gives, or `otherwise` if it is not given. */
unsigned tunnel_number(const struct tunnel *, enum tunnel_option, unsigned otherwise);

/* Whether one service serves all connections of the tunnel: not with accept=yes. */
bool tunnel_one_service(const struct tunnel *);

/* The program's argument for an option, such as "-o " or "--linger="; NULL: it is not the program's. */
const char *tunnel_argument(enum tunnel_option);

#endif
