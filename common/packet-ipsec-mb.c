/* The bulk backend, with Intel's ipsec-mb: one core hashes several packets at a time. */

#include <endian.h>
#include <string.h>

#define NO_COMPAT_IMB_API_053 /* no old names: they clash with those of libcrypto */
#include <intel-ipsec-mb.h>

#include "packet-bulk.h"
#include "secret.h"

/* One direction: its keys, in the form the library reads, and behind this the library's memory. */
struct bulk {
	uint8_t encrypt[15 * 16] __attribute__((aligned(64)));
	uint8_t inner[HASH_SIZE], outer[HASH_SIZE];
	IMB_JOB jobs[BULK_MOST];
	IMB_MGR *manager;
};

static size_t bulk_size(void)
{
	return sizeof(struct bulk) + imb_get_mb_mgr_size();
}

int bulk_available(void)
{
	uint64_t need = IMB_FEATURE_AESNI | IMB_FEATURE_AVX2;

	return (imb_get_feature_flags() & need) == need;
}

struct bulk *bulk_start(const uint8_t key[static CIPHER_KEY_SIZE], const struct hmac_key *mac)
{
	uint8_t decrypt[15 * 16] __attribute__((aligned(16))); /* comes with the other; not used */
	/* Our own memory, because the library's allocator would not wipe it. */
	struct bulk *b = bulk_available() ? secret_alloc(bulk_size()) : NULL;
	IMB_ARCH kind;

	if (b == NULL)
		return NULL;
	b->manager = imb_set_pointers_mb_mgr(b + 1, 0, 1);
	init_mb_mgr_auto(b->manager, &kind);
	if (imb_get_errno(b->manager) != 0 ||
	    !(b->manager->features & IMB_FEATURE_SELF_TEST_PASS)) {
		bulk_done(b);
		return NULL;
	}
	IMB_AES_KEYEXP_256(b->manager, key, b->encrypt, decrypt);
	wipe(decrypt, sizeof(decrypt));
	memcpy(b->inner, mac->inner.h, sizeof(b->inner));
	memcpy(b->outer, mac->outer.h, sizeof(b->outer));
	return b;
}

int bulk_crypt(struct bulk *b, uint8_t *wire, size_t count, size_t stride, size_t size,
    uint64_t number)
{
	uint64_t counters[BULK_MOST][2];

	for (size_t i = 0; i < count; i++, wire += stride) {
		IMB_JOB *job = &b->jobs[i];

		counters[i][0] = htobe64(number + i);
		counters[i][1] = 0;
		job->src = wire;
		job->dst = wire;
		job->msg_len_to_cipher_in_bytes = size;
		job->enc_keys = b->encrypt;
		job->key_len_in_bytes = IMB_KEY_256_BYTES;
		job->iv = (const uint8_t *)counters[i];
		job->iv_len_in_bytes = sizeof(counters[i]);
	}
	return IMB_SUBMIT_CIPHER_BURST_NOCHECK(b->manager, b->jobs, (uint32_t)count,
		   IMB_CIPHER_CNTR, IMB_DIR_ENCRYPT, IMB_KEY_256_BYTES) == count
	    ? 0
	    : -1;
}

int bulk_mac(struct bulk *b, const uint8_t *wire, size_t count, size_t stride, size_t size,
    uint8_t macs[][HASH_SIZE])
{
	for (size_t i = 0; i < count; i++, wire += stride) {
		IMB_JOB *job = &b->jobs[i];

		job->src = wire;
		job->hash_start_src_offset_in_bytes = 0;
		job->msg_len_to_hash_in_bytes = size;
		job->auth_tag_output = macs[i];
		job->auth_tag_output_len_in_bytes = HASH_SIZE;
		job->u.HMAC._hashed_auth_key_xor_ipad = b->inner;
		job->u.HMAC._hashed_auth_key_xor_opad = b->outer;
	}
	return IMB_SUBMIT_HASH_BURST_NOCHECK(b->manager, b->jobs, (uint32_t)count,
		   IMB_AUTH_HMAC_SHA_256) == count
	    ? 0
	    : -1;
}

void bulk_done(struct bulk *b)
{
	secret_free(b, bulk_size());
}
