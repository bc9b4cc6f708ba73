/* The chain: one entry per transaction, with a digest of every row that it wrote or removed, and a hash over all of it and the
 * entry before.
 *
 * A row's seal is BLAKE2b-128 over its kind and its columns in the order of chain_tables, each with its type and length: made by
 * an SQL function, so that what is sealed is what is stored, whichever columns a statement leaves as they were. The key's digest
 * is the same over the columns that make the key. */
#include "journal_private.h"

#include "base/seeded.h"

#include <sodium.h>
#include <stdio.h>
#include <string.h>

#define GATHER_SIZE 1024u

_Static_assert(crypto_generichash_BYTES == CHAIN_HASH_SIZE, "the hash of an entry");
_Static_assert(crypto_generichash_BYTES_MIN <= CHAIN_SEAL_SIZE, "the seal of a row");

static void put_le64(uint8_t *to, uint64_t value)
{
    for (int i = 0; i < 8; i++)
        to[i] = (uint8_t)(value >> 8 * i);
}

/* Most rows are hashed in one piece: a call for each length and value would cost as much as the hash. */
struct gather {
    crypto_generichash_state state;
    size_t used;
    uint8_t data[GATHER_SIZE];
};

static void gather(struct gather *to, const void *data, size_t len)
{
    if (len > sizeof to->data - to->used) {
        crypto_generichash_update(&to->state, to->data, to->used);
        to->used = 0;
    }
    if (len > sizeof to->data) {
        crypto_generichash_update(&to->state, data, len);
    } else if (len) {
        memcpy(to->data + to->used, data, len);
        to->used += len;
    }
}

static void gather_value(struct gather *to, sqlite3_value *value)
{
    uint8_t head[9] = {(uint8_t)sqlite3_value_type(value)};
    const void *data = NULL;
    size_t len = 0;
    if (head[0] == SQLITE_INTEGER) {
        put_le64(head + 1, (uint64_t)sqlite3_value_int64(value));
    } else if (head[0] != SQLITE_NULL) {
        data = sqlite3_value_blob(value);
        len = (size_t)sqlite3_value_bytes(value);
        put_le64(head + 1, len);
    }
    gather(to, head, sizeof head);
    gather(to, data, len);
}

static void digest_values(uint8_t kind, sqlite3_value **values, int count, uint8_t ret[CHAIN_SEAL_SIZE])
{
    struct gather all;
    all.used = 0;
    crypto_generichash_init(&all.state, NULL, 0, CHAIN_SEAL_SIZE);
    gather(&all, &kind, 1);
    for (int i = 0; i < count; i++)
        gather_value(&all, values[i]);
    crypto_generichash_update(&all.state, all.data, all.used);
    crypto_generichash_final(&all.state, ret, CHAIN_SEAL_SIZE);
}

static bool is_row(int argc, sqlite3_value **argv, unsigned count_of_kind[2])
{
    int kind = argc > 0 ? sqlite3_value_int(argv[0]) : 0;
    if (kind <= 0 || kind >= CHAIN_KINDS || !chain_tables[kind].name)
        return false;
    count_of_kind[0] = chain_tables[kind].n_key;
    count_of_kind[1] = chain_tables[kind].n_columns;
    return true;
}

bool chain_is_sealed(sqlite3_stmt *statement, enum chain_kind kind)
{
    sqlite3_value *values[CHAIN_COLUMNS_MAX];
    uint8_t seal[CHAIN_SEAL_SIZE];
    int count = (int)chain_tables[kind].n_columns;
    for (int i = 0; i < count; i++)
        values[i] = sqlite3_column_value(statement, i);
    digest_values((uint8_t)kind, values, count, seal);
    const void *kept = sqlite3_column_blob(statement, count);
    return SEEDED_BUG("unlooked-chain") || (kept && sqlite3_column_bytes(statement, count) == CHAIN_SEAL_SIZE && memcmp(kept, seal, sizeof seal) == 0);
}

/* row_seal(kind, column…) → seal; on the writing side it is noted for the chain. An upsert seals twice: what is noted last holds. */
static void on_seal(sqlite3_context *context, int argc, sqlite3_value **argv)
{
    struct chain *chain = sqlite3_user_data(context);
    unsigned counts[2];
    uint8_t note[CHAIN_ROW_SIZE];
    if (!is_row(argc, argv, counts) || (unsigned)argc != counts[1] + 1) {
        sqlite3_result_error(context, "row_seal is given a row of no table", -1);
        return;
    }
    note[0] = (uint8_t)sqlite3_value_int(argv[0]);
    digest_values(note[0], argv + 1, argc - 1, note + 1 + CHAIN_SEAL_SIZE);
    sqlite3_result_blob(context, note + 1 + CHAIN_SEAL_SIZE, CHAIN_SEAL_SIZE, SQLITE_TRANSIENT);
    if (!chain)
        return;
    digest_values(note[0], argv + 1, (int)counts[0], note + 1);
    if (chain->is_bulk) {
        if (amp_buf_append(&chain->rows, note, sizeof note) != AMP_OK)
            sqlite3_result_error_nomem(context);
    } else {
        memcpy(chain->note, note, sizeof note);
        chain->is_noted = true;
    }
}

/* row_gone(kind, key…): noted with a seal of zeros. */
static void on_gone(sqlite3_context *context, int argc, sqlite3_value **argv)
{
    struct chain *chain = sqlite3_user_data(context);
    unsigned counts[2];
    uint8_t note[CHAIN_ROW_SIZE] = {0};
    if (!is_row(argc, argv, counts) || (unsigned)argc != counts[0] + 1) {
        sqlite3_result_error(context, "row_gone is given a key of no table", -1);
        return;
    }
    note[0] = (uint8_t)sqlite3_value_int(argv[0]);
    digest_values(note[0], argv + 1, argc - 1, note + 1);
    if (chain && amp_buf_append(&chain->rows, note, sizeof note) != AMP_OK)
        sqlite3_result_error_nomem(context);
}

/* row_key(kind, key…) → its digest, as it stands in the chain. */
static void on_key(sqlite3_context *context, int argc, sqlite3_value **argv)
{
    uint8_t digest[CHAIN_SEAL_SIZE];
    digest_values((uint8_t)sqlite3_value_int(argv[0]), argv + 1, argc - 1, digest);
    sqlite3_result_blob(context, digest, sizeof digest, SQLITE_TRANSIENT);
}

static void on_entry(sqlite3_context *context, int argc, sqlite3_value **argv)
{
    const struct chain *chain = sqlite3_user_data(context);
    size_t before = chain ? chain->rows.len / CHAIN_ROW_SIZE / CHAIN_ENTRY_ROWS : 0; /* entries that those of this transaction fill */
    sqlite3_result_int64(context, chain ? (int64_t)(chain->n + 1 + before) : 0);
}

int chain_functions(sqlite3 *db, struct chain *chain)
{
    const int flags = SQLITE_UTF8 | SQLITE_DIRECTONLY;
    if (sodium_init() < 0) /* it chooses the fastest of its hashes for this machine */
        return SQLITE_ERROR;
    int status = sqlite3_create_function(db, "row_seal", -1, flags, chain, on_seal, NULL, NULL);
    if (status == SQLITE_OK)
        status = sqlite3_create_function(db, "row_gone", -1, flags, chain, on_gone, NULL, NULL);
    if (status == SQLITE_OK)
        status = sqlite3_create_function(db, "row_key", -1, flags, chain, on_key, NULL, NULL);
    if (status == SQLITE_OK)
        status = sqlite3_create_function(db, "chain_entry", 0, flags, chain, on_entry, NULL, NULL);
    return status;
}

/* ---- entries --------------------------------------------------------------------------------------------------------- */

void chain_init(struct chain *chain)
{
    *chain = (struct chain){0};
    amp_buf_init(&chain->rows, CHAIN_BYTES_MAX);
}

void chain_done(struct chain *chain)
{
    amp_buf_done(&chain->rows);
}

void chain_begin(struct chain *chain)
{
    amp_buf_reset(&chain->rows);
    chain->is_noted = chain->is_bulk = false;
    chain->next_n = chain->n;
    memcpy(chain->next_hash, chain->hash, sizeof chain->hash);
}

bool chain_take(struct chain *chain)
{
    bool is_taken = chain->is_noted && amp_buf_append(&chain->rows, chain->note, sizeof chain->note) == AMP_OK;
    chain->is_noted = false;
    return is_taken;
}

void chain_hash(const struct chain_entry *entry, const uint8_t before[CHAIN_HASH_SIZE], uint8_t ret[CHAIN_HASH_SIZE])
{
    crypto_generichash_state state;
    uint8_t numbers[16];
    put_le64(numbers, entry->n);
    put_le64(numbers + 8, (uint64_t)entry->at_unix_ms);
    crypto_generichash_init(&state, NULL, 0, CHAIN_HASH_SIZE);
    crypto_generichash_update(&state, before, CHAIN_HASH_SIZE);
    crypto_generichash_update(&state, numbers, sizeof numbers);
    crypto_generichash_update(&state, entry->rows.data, entry->rows.len);
    crypto_generichash_final(&state, ret, CHAIN_HASH_SIZE);
}

static bool add_entry(struct store *store, struct chain_entry *entry)
{
    struct chain *chain = &store->chain;
    if (!chain->insert && sqlite3_prepare_v3(store->db, "INSERT INTO chain (n, at, rows, hash) VALUES (?1, ?2, ?3, ?4)", -1,
                                             SQLITE_PREPARE_PERSISTENT, &chain->insert, NULL) != SQLITE_OK)
        return false;
    chain_hash(entry, chain->next_hash, chain->next_hash);
    sqlite3_bind_int64(chain->insert, 1, (int64_t)entry->n);
    sqlite3_bind_int64(chain->insert, 2, entry->at_unix_ms);
    sqlite3_bind_blob64(chain->insert, 3, entry->rows.data, entry->rows.len, SQLITE_STATIC);
    sqlite3_bind_blob(chain->insert, 4, chain->next_hash, CHAIN_HASH_SIZE, SQLITE_STATIC);
    int status = sqlite3_step(chain->insert);
    sqlite3_reset(chain->insert);
    chain->next_n = entry->n;
    return status == SQLITE_DONE;
}

bool chain_add(struct store *store, int64_t now_unix_ms)
{
    struct chain *chain = &store->chain;
    bool is_added = true;
    for (size_t at = 0; is_added && at < chain->rows.len;) {
        size_t left = chain->rows.len - at, most = (size_t)CHAIN_ENTRY_ROWS * CHAIN_ROW_SIZE;
        struct chain_entry entry = {.n = chain->next_n + 1, .at_unix_ms = now_unix_ms,
                                    .rows = {.data = chain->rows.data + at, .len = left < most ? left : most}};
        is_added = add_entry(store, &entry);
        at += entry.rows.len;
    }
    return is_added;
}

void chain_committed(struct chain *chain)
{
    chain->n = chain->next_n;
    memcpy(chain->hash, chain->next_hash, sizeof chain->hash);
}

/* ---- reading it ------------------------------------------------------------------------------------------------------- */

int chain_read(sqlite3_stmt *statement, struct chain_entry *ret)
{
    int status = sqlite3_step(statement);
    if (status != SQLITE_ROW)
        return status;
    ret->n = (uint64_t)sqlite3_column_int64(statement, 0);
    ret->at_unix_ms = sqlite3_column_int64(statement, 1);
    ret->rows.data = sqlite3_column_blob(statement, 2);
    ret->rows.len = (size_t)sqlite3_column_bytes(statement, 2);
    const void *hash = sqlite3_column_blob(statement, 3);
    bool is_whole = hash && sqlite3_column_bytes(statement, 3) == CHAIN_HASH_SIZE;
    memset(ret->hash, 0, sizeof ret->hash);
    if (is_whole)
        memcpy(ret->hash, hash, CHAIN_HASH_SIZE);
    return SQLITE_ROW;
}

bool chain_base(sqlite3 *db, uint64_t *ret_n, uint8_t ret_hash[CHAIN_HASH_SIZE])
{
    sqlite3_stmt *statement = NULL;
    unsigned long long n = 0;
    char hex[2 * CHAIN_HASH_SIZE + 1] = "";
    *ret_n = 0;
    memset(ret_hash, 0, CHAIN_HASH_SIZE);
    bool is_read = sqlite3_prepare_v2(db, "SELECT value FROM meta WHERE name = 'base'", -1, &statement, NULL) == SQLITE_OK;
    int status = is_read ? sqlite3_step(statement) : SQLITE_ERROR;
    if (status == SQLITE_ROW) {
        const char *value = (const char *)sqlite3_column_text(statement, 0);
        is_read = value && sscanf(value, "%llu %64s", &n, hex) == 2 &&
                  sodium_hex2bin(ret_hash, CHAIN_HASH_SIZE, hex, strlen(hex), NULL, NULL, NULL) == 0;
        *ret_n = n;
    }
    sqlite3_finalize(statement);
    return is_read && (status == SQLITE_ROW || status == SQLITE_DONE);
}
