#include "secret.h"

#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>

void *secret_alloc(size_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		return NULL;
	madvise(p, size, MADV_DONTDUMP);
	madvise(p, size, MADV_WIPEONFORK);
	mlock2(p, size, MLOCK_ONFAULT);
	return p;
}

void secret_free(void *p, size_t size)
{
	if (p == NULL)
		return;
	wipe(p, size);
	munmap(p, size);
}

void wipe(void *p, size_t size)
{
	explicit_bzero(p, size);
}

static struct rlimit core_limit;

void secret_harden(void)
{
	struct rlimit none;

	getrlimit(RLIMIT_CORE, &core_limit);
	none = (struct rlimit){ .rlim_cur = 0, .rlim_max = core_limit.rlim_max };
	setrlimit(RLIMIT_CORE, &none);
	prctl(PR_SET_DUMPABLE, 0);
}

void secret_unharden(void)
{
	setrlimit(RLIMIT_CORE, &core_limit);
}
