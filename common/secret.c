#include "secret.h"

#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>

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

void secret_harden(void)
{
	prctl(PR_SET_DUMPABLE, 0);
}
