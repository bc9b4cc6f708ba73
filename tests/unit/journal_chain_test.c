#include "env/journal_files.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>
#include <sodium.h>
#include <sqlite3.h>

#include "base/log.h"
#include "base/loop.h"
#include "journal_world.h"

/* A journal's files as they are on the disk at one moment. */
static const char *const suffixes[] = {"", "-wal", "-head"};
enum { DB, WAL, HEAD, FILES };

struct image {
    uint8_t *data[FILES];
    size_t len[FILES];
};

struct fixture {
    struct journal_world world;
    char copy[96];   /* where damaged ones are looked at */
    unsigned events; /* of t-1 */
    struct image image;
    char findings[2000];
};

static int setup(void **state)
{
    struct fixture *fixture = calloc(1, sizeof *fixture);
    journal_world_begin(&fixture->world);
    snprintf(fixture->copy, sizeof fixture->copy, "%s/copy.db", fixture->world.dir);
    *state = fixture;
    return 0;
}

static void image_free(struct image *image)
{
    for (int i = 0; i < FILES; i++)
        free(image->data[i]);
    *image = (struct image){0};
}

static int teardown(void **state)
{
    struct fixture *fixture = *state;
    journal_world_end(&fixture->world);
    image_free(&fixture->image);
    free(fixture);
    return 0;
}

/* ---- writing ------------------------------------------------------------------------------------------------------ */

/* One more event of t-1. */
static void write_event(struct fixture *fixture)
{
    struct journal_batch *batch = journal_batch_new(fixture->world.journal);
    struct journal_row *row = journal_batch_add(batch, JOURNAL_EVENT);
    row->task = "t-1";
    row->seq = ++fixture->events;
    row->count = 1;
    row->body = amp_bytes_of("the body of an event, some words long");
    journal_world_add_task(batch, "t-1", 100, fixture->events);
    journal_world_write(&fixture->world, batch);
}

static void write_kv(struct fixture *fixture, const char *key, uint32_t version)
{
    struct journal_batch *batch = journal_batch_new(fixture->world.journal);
    struct journal_row *row = journal_batch_add(batch, JOURNAL_KV);
    row->scope = "shared";
    row->key = journal_batch_text(batch, key);
    row->version = version;
    row->body = amp_bytes_of("\"blue\"");
    journal_world_write(&fixture->world, batch);
}

static void write_death(struct fixture *fixture)
{
    struct journal_batch *batch = journal_batch_new(fixture->world.journal);
    struct journal_row *row = journal_batch_add(batch, JOURNAL_DEATH);
    row->agent = "up";
    row->instance = "i-1";
    row->body = amp_bytes_of("killed");
    journal_world_write(&fixture->world, batch);
}

/* Half of it in the file, half in the log. */
static void fill(struct fixture *fixture)
{
    journal_world_write_task(&fixture->world, "t-1", 100);
    write_event(fixture);
    write_kv(fixture, "colour", 1);
    write_death(fixture);
    journal_world_close(&fixture->world);
    journal_world_must_open(&fixture->world);
    write_event(fixture);
    journal_world_write_task(&fixture->world, "t-2", 200);
    write_kv(fixture, "size", 1);
    write_kv(fixture, "size", 0);
    write_kv(fixture, "colour", 2);
}

/* ---- files -------------------------------------------------------------------------------------------------------- */

/* As a killed environment leaves them. */
static void take_image(struct fixture *fixture)
{
    image_free(&fixture->image);
    for (int i = 0; i < FILES; i++) {
        char name[128];
        struct stat info;
        snprintf(name, sizeof name, "%s%s", fixture->world.path, suffixes[i]);
        FILE *file = fopen(name, "r");
        assert_non_null(file);
        assert_int_equal(fstat(fileno(file), &info), 0);
        fixture->image.len[i] = (size_t)info.st_size;
        fixture->image.data[i] = malloc(fixture->image.len[i] + 1);
        assert_int_equal(fread(fixture->image.data[i], 1, fixture->image.len[i], file), fixture->image.len[i]);
        fclose(file);
    }
}

static void put_file(const char *path, const char *suffix, const uint8_t *data, size_t len)
{
    char name[128];
    snprintf(name, sizeof name, "%s%s", path, suffix);
    if (!data) {
        (void)unlink(name);
        return;
    }
    FILE *file = fopen(name, "w");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, len, file), len);
    fclose(file);
}

static void put_image(const char *path, const struct image *image)
{
    put_file(path, "-shm", NULL, 0);
    for (int i = 0; i < FILES; i++)
        put_file(path, suffixes[i], image->data[i], image->len[i]);
}

static void on_finding(void *ctx, const struct journal_finding *finding)
{
    struct fixture *fixture = ctx;
    size_t len = strlen(fixture->findings);
    snprintf(fixture->findings + len, sizeof fixture->findings - len, "%s|%s|%llu|%s\n", finding->table, finding->row, (unsigned long long)finding->entry, finding->text);
}

static enum amp_code verify(struct fixture *fixture, const char *path)
{
    static const struct journal_verify_handlers handlers = {.on_finding = on_finding};
    struct journal_report report;
    struct amp_error err = {0};
    fixture->findings[0] = '\0';
    return journal_verify(path, &handlers, fixture, &report, &err);
}

static void must_be_sound(struct fixture *fixture, const char *path)
{
    if (verify(fixture, path) != AMP_OK)
        fail_msg("%s", fixture->findings);
}

static void must_find(struct fixture *fixture, const char *path, const char *text)
{
    assert_int_equal(verify(fixture, path), AMP_CORRUPT);
    if (!strstr(fixture->findings, text))
        fail_msg("no \"%s\" in: %s", text, fixture->findings);
}

static void run_sql(const char *path, const char *sql)
{
    sqlite3 *db;
    char *error = NULL;
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    if (sqlite3_exec(db, sql, NULL, NULL, &error) != SQLITE_OK)
        fail_msg("%s", error);
    sqlite3_close(db);
}

/* ---- rows ---------------------------------------------------------------------------------------------------------- */

static bool count_row(void *ctx, const struct journal_row *row)
{
    ++*(unsigned *)ctx;
    return true;
}

static enum amp_code read_task(struct fixture *fixture, const char *id, struct amp_error *err)
{
    const struct journal_query query = {.task = id};
    unsigned count = 0;
    return journal_tasks(fixture->world.journal, &query, count_row, &count, NULL, err);
}

static void test_a_journal_in_use_and_one_that_was_closed_are_sound(void **state)
{
    struct fixture *fixture = *state;
    fill(fixture);
    must_be_sound(fixture, fixture->world.path);
    take_image(fixture);
    put_image(fixture->copy, &fixture->image);
    must_be_sound(fixture, fixture->copy);
    journal_world_close(&fixture->world);
    must_be_sound(fixture, fixture->world.path);
}

static void test_a_row_that_was_changed_is_named_when_it_is_read_and_by_verify(void **state)
{
    struct fixture *fixture = *state;
    struct amp_error err = {0};
    fill(fixture);
    run_sql(fixture->world.path, "UPDATE tasks SET request = x'00' WHERE id = 't-2'");
    assert_int_equal(read_task(fixture, "t-1", &err), AMP_OK);
    assert_int_equal(read_task(fixture, "t-2", &err), AMP_CORRUPT);
    assert_non_null(strstr(err.message, "task t-2"));
    assert_non_null(strstr(err.message, "entry"));
    assert_non_null(strstr(err.hint, "amesh env verify"));
    must_find(fixture, fixture->world.path, "tasks|task t-2|");
}

static void test_every_kind_of_row_is_checked_when_it_is_read(void **state)
{
    struct fixture *fixture = *state;
    const struct journal_kv_query query = {.scope = "shared", .key = "colour"};
    unsigned count = 0;
    fill(fixture);
    run_sql(fixture->world.path, "UPDATE events SET at = 7; UPDATE kv SET value = x'01'; UPDATE deaths SET agent = 'down'; UPDATE keys SET digest = x'01'");
    assert_int_equal(journal_events(fixture->world.journal, "t-1", 1, count_row, &count, NULL), AMP_CORRUPT);
    assert_int_equal(journal_kv(fixture->world.journal, &query, count_row, &count), AMP_CORRUPT);
    assert_int_equal(journal_deaths(fixture->world.journal, NULL, 0, count_row, &count, NULL), AMP_CORRUPT);
    assert_int_equal(journal_key(fixture->world.journal, "me", "t-1", count_row, &count), AMP_CORRUPT);
    assert_int_equal(count, 0);
    must_find(fixture, fixture->world.path, "kv|value shared//colour|");
}

static void test_a_row_that_is_gone_older_or_back_is_found(void **state)
{
    struct fixture *fixture = *state;
    fill(fixture);
    take_image(fixture);
    static const struct {
        const char *sql, *text;
    } cases[] = {
        {"DELETE FROM kv", "kv||"},
        {"DELETE FROM events WHERE seq = 2", "it has 2 events, but the last one that is there is 1"},
        {"DELETE FROM events WHERE seq = 1", "go on with 2 where 1 is next"},
        {"INSERT INTO keys SELECT sender, 'other', task, digest, entry, seal FROM keys LIMIT 1", "idempotency key other of me"},
        {"DELETE FROM chain WHERE n = 3", "chain||4|entries from 3 to 3 are missing"},
        {"UPDATE chain SET at = at + 1 WHERE n = 3", "chain||3|the entry is not what was written"},
        {"DELETE FROM chain WHERE n = (SELECT max(n) FROM chain)", "were committed and are lost"},
        {"UPDATE tasks SET entry = 1 WHERE id = 't-2'", "it names entry 1 as its own"},
        {"DROP INDEX tasks_open", "its tables are not those of a journal"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        put_image(fixture->copy, &fixture->image);
        run_sql(fixture->copy, cases[i].sql);
        must_find(fixture, fixture->copy, cases[i].text);
    }
}

/* ---- the log and the head ------------------------------------------------------------------------------------------- */

static enum amp_code open_copy(struct fixture *fixture, struct amp_error *err)
{
    struct journal *journal = NULL;
    enum amp_code code = journal_open(fixture->world.loop, fixture->copy, &journal, err);
    journal_close(journal);
    return code;
}

#define FRAME (4096u + 24u)

static void test_a_log_that_lost_its_end_is_refused_and_left_as_it_is(void **state)
{
    struct fixture *fixture = *state;
    struct amp_error err = {0};
    struct stat info;
    char name[128];
    fill(fixture);
    take_image(fixture);
    fixture->image.len[WAL] -= FRAME;
    put_image(fixture->copy, &fixture->image);
    for (int i = 0; i < 2; i++) { /* looking at it does not mend it */
        assert_int_equal(open_copy(fixture, &err), AMP_CORRUPT);
        assert_non_null(strstr(err.message, "were committed and are lost"));
        assert_non_null(strstr(err.hint, "amesh env verify"));
        must_find(fixture, fixture->copy, "were committed and are lost");
    }
    snprintf(name, sizeof name, "%s-wal", fixture->copy);
    assert_int_equal(stat(name, &info), 0);
    assert_int_equal(info.st_size, fixture->image.len[WAL]);
}

static void test_a_wrong_frame_with_transactions_behind_it_is_refused_without_a_head_too(void **state)
{
    struct fixture *fixture = *state;
    struct amp_error err = {0};
    fill(fixture);
    take_image(fixture);
    fixture->image.data[WAL][32 + FRAME + 500] ^= 4;
    free(fixture->image.data[HEAD]);
    fixture->image.data[HEAD] = NULL;
    put_image(fixture->copy, &fixture->image);
    assert_int_equal(open_copy(fixture, &err), AMP_CORRUPT);
    assert_non_null(strstr(err.message, "frame 2 of its log"));
    must_find(fixture, fixture->copy, "frame 2 of its log");
}

/* The log tells how many pages there are; the file lacks some. What a checkpoint that was killed leaves is no damage. */
static void test_a_file_that_was_cut_is_refused_unless_the_log_has_what_it_lacks(void **state)
{
    struct fixture *fixture = *state;
    struct amp_error err = {0};
    for (int i = 3; i < 60; i++) {
        char id[16];
        snprintf(id, sizeof id, "t-%d", i);
        journal_world_write_task(&fixture->world, id, 1000 + i);
    }
    journal_world_close(&fixture->world);
    journal_world_must_open(&fixture->world);
    fill(fixture);
    take_image(fixture);
    size_t whole = fixture->image.len[DB], n_served = 0, n_refused = 0;
    for (size_t len = whole - 1; len > 0; len -= len > 1000 ? 1000 : len) {
        fixture->image.len[DB] = len;
        put_image(fixture->copy, &fixture->image);
        bool is_sound = verify(fixture, fixture->copy) == AMP_OK;
        enum amp_code code = open_copy(fixture, &err);
        if (is_sound != (code == AMP_OK))
            fail_msg("cut to %zu of %zu: %s", len, whole, is_sound ? err.message : "served");
        n_served += code == AMP_OK;
        n_refused += code == AMP_CORRUPT;
    }
    assert_true(n_refused > 10);
    print_message("%zu served, %zu refused\n", n_served, n_refused);
}

static void test_the_tail_of_a_transaction_that_never_ended_is_cut(void **state)
{
    struct fixture *fixture = *state;
    struct amp_error err = {0};
    fill(fixture);
    take_image(fixture);
    struct image before = fixture->image;
    fixture->image = (struct image){0};
    write_event(fixture);
    take_image(fixture);
    struct image *torn = &fixture->image; /* its head is the old one: nobody was told */
    free(torn->data[HEAD]);
    torn->data[HEAD] = before.data[HEAD];
    before.data[HEAD] = NULL;
    torn->len[WAL] = before.len[WAL] + FRAME + 100;
    put_image(fixture->copy, torn);
    must_be_sound(fixture, fixture->copy);
    assert_int_equal(open_copy(fixture, &err), AMP_OK);
    must_be_sound(fixture, fixture->copy);
    image_free(&before);
}

static void test_a_head_that_is_missing_garbled_old_or_another_journals_is_made_anew(void **state)
{
    struct fixture *fixture = *state;
    struct amp_error err = {0};
    uint8_t garbage[] = "amesh-journal-head 1 garbage";
    fill(fixture);
    take_image(fixture);
    struct image old = fixture->image;
    fixture->image = (struct image){0};
    write_event(fixture);
    take_image(fixture);
    struct {
        uint8_t *data;
        size_t len;
    } heads[] = {{NULL, 0}, {garbage, sizeof garbage}, {old.data[HEAD], old.len[HEAD]}, {garbage, 0}};
    for (size_t i = 0; i < sizeof heads / sizeof heads[0]; i++) {
        put_image(fixture->copy, &fixture->image);
        put_file(fixture->copy, "-head", heads[i].data, heads[i].len);
        must_be_sound(fixture, fixture->copy);
        assert_int_equal(open_copy(fixture, &err), AMP_OK);
    }
    image_free(&old);
}

static void test_an_empty_file_where_there_was_a_journal_is_refused(void **state)
{
    struct fixture *fixture = *state;
    struct amp_error err = {0};
    fill(fixture);
    take_image(fixture);
    put_image(fixture->copy, &fixture->image);
    put_file(fixture->copy, "", (const uint8_t *)"", 0);
    assert_int_equal(open_copy(fixture, &err), AMP_CORRUPT);
    put_file(fixture->copy, "-wal", NULL, 0);
    assert_int_equal(open_copy(fixture, &err), AMP_CORRUPT);
    assert_non_null(strstr(err.hint, "-head"));
    put_file(fixture->copy, "-head", NULL, 0);
    assert_int_equal(open_copy(fixture, &err), AMP_OK);
}

/* ---- former versions ------------------------------------------------------------------------------------------------- */

static void take_over(struct fixture *fixture, const char *sql, unsigned tasks)
{
    struct journal_counts counts;
    char command[300];
    journal_world_close(&fixture->world);
    snprintf(command, sizeof command, "rm %s*; cp %s %s", fixture->world.path, JOURNAL_V2, fixture->world.path);
    assert_int_equal(system(command), 0);
    run_sql(fixture->world.path, sql);
    journal_world_must_open(&fixture->world);
    assert_int_equal(journal_count(fixture->world.journal, &counts), AMP_OK);
    assert_int_equal(counts.tasks, tasks);
    must_be_sound(fixture, fixture->world.path);
    journal_world_write_task(&fixture->world, "t-new", 5);
    must_be_sound(fixture, fixture->world.path);
    journal_world_close(&fixture->world);
    journal_world_must_open(&fixture->world);
    must_be_sound(fixture, fixture->world.path);
    run_sql(fixture->world.path, "UPDATE deaths SET at = at + 1");
    must_find(fixture, fixture->world.path, "deaths|death 1 of crash|1|");
}

static void test_a_journal_of_version_2_is_chained_as_it_is(void **state)
{
    take_over(*state, "SELECT 1", 4);
}

static void test_a_journal_of_version_1_is_taken_over(void **state)
{
    take_over(*state,
              "DROP INDEX tasks_dead; ALTER TABLE tasks DROP COLUMN dead; PRAGMA user_version = 1;"
              "INSERT INTO tasks (id, context, state, durable, open, incomplete, submitted, started, ended, attempt, events)"
              " VALUES ('t-old', 'c-1', 3, 1, 0, 0, 5, 5, 6, 1, 0)",
              5);
}

/* ---- every byte ------------------------------------------------------------------------------------------------------- */

/* All rows, whatever path they are found by. */
static void dump(const char *path, uint8_t ret[32])
{
    static const char *const tables[] = {"SELECT * FROM tasks NOT INDEXED", "SELECT * FROM events", "SELECT * FROM keys", "SELECT * FROM kv NOT INDEXED",
                                         "SELECT * FROM deaths", "SELECT id FROM tasks WHERE open = 1 ORDER BY submitted, id",
                                         "SELECT id FROM tasks WHERE context = 'c-1' ORDER BY submitted, id"};
    crypto_generichash_state hash;
    sqlite3 *db;
    sqlite3_stmt *statement;
    crypto_generichash_init(&hash, NULL, 0, 32);
    assert_int_equal(sqlite3_open_v2(path, &db, SQLITE_OPEN_READONLY, NULL), SQLITE_OK);
    sqlite3_db_config(db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
    for (size_t i = 0; i < sizeof tables / sizeof tables[0]; i++) {
        assert_int_equal(sqlite3_prepare_v2(db, tables[i], -1, &statement, NULL), SQLITE_OK);
        while (sqlite3_step(statement) == SQLITE_ROW) {
            for (int at = 0; at < sqlite3_column_count(statement); at++) {
                const void *data = sqlite3_column_blob(statement, at);
                crypto_generichash_update(&hash, data ? data : "", (size_t)sqlite3_column_bytes(statement, at));
                crypto_generichash_update(&hash, (const uint8_t *)"|", 1);
            }
        }
        sqlite3_finalize(statement);
    }
    sqlite3_close(db);
    crypto_generichash_final(&hash, ret, 32);
}

/* Sound with every row there, or damage that is named; and opening it, which may repair, does not turn the one into the other. One that was
 * cut is not opened. */
static bool look_at(struct fixture *fixture, const uint8_t wanted[32], const char *what, size_t at, bool is_cut)
{
    uint8_t found[32];
    struct amp_error err = {0};
    bool was_sound = verify(fixture, fixture->copy) == AMP_OK;
    for (int round = 0; round < 2; round++) {
        if (verify(fixture, fixture->copy) == AMP_OK) {
            dump(fixture->copy, found);
            if (memcmp(found, wanted, 32) != 0)
                fail_msg("%s at %zu: said to be sound, but rows are not what was committed (round %d)", what, at, round);
        } else if (!fixture->findings[0]) {
            fail_msg("%s at %zu: damaged, but nothing is named", what, at);
        }
        enum amp_code code = round == 0 ? open_copy(fixture, &err) : AMP_CORRUPT;
        if (round == 0 && code != AMP_OK && was_sound)
            fail_msg("%s at %zu: said to be sound, but refused: %s", what, at, err.message);
        if (code == AMP_OK && !was_sound && is_cut)
            fail_msg("%s at %zu: damaged, but served", what, at);
    }
    return was_sound;
}

enum { SQLITE_HEADER = 100 };

static size_t every(void)
{
    const char *text = getenv("AMESH_FLIP_EVERY"); /* 1: all of them */
    return text && atoi(text) > 0 ? (size_t)atoi(text) : 2503;
}

/* Of the header's bits: in each byte some, and of all bytes together each place. */
static size_t every_bit(void)
{
    return every() < 3 ? 1 : 3;
}

/* What SQLite itself goes by: its refusals are named as damage, too. */
static void test_each_bit_of_the_header_that_is_wrong_is_harmless_or_named(void **state)
{
    struct fixture *fixture = *state;
    uint8_t wanted[32];
    fill(fixture);
    take_image(fixture);
    journal_world_close(&fixture->world);
    log_init(LOG_ERROR + 1, "test");
    put_image(fixture->copy, &fixture->image);
    dump(fixture->copy, wanted);
    for (size_t bit = 0; bit < SQLITE_HEADER * 8; bit += every_bit()) {
        fixture->image.data[DB][bit / 8] ^= (uint8_t)(1u << bit % 8);
        put_image(fixture->copy, &fixture->image);
        fixture->image.data[DB][bit / 8] ^= (uint8_t)(1u << bit % 8);
        (void)look_at(fixture, wanted, "header", bit / 8, false);
    }
}

static void test_each_byte_that_is_wrong_and_each_length_is_harmless_or_named(void **state)
{
    struct fixture *fixture = *state;
    uint8_t wanted[32];
    size_t n_sound = 0, n_damaged = 0, stride = every();
    fill(fixture);
    take_image(fixture);
    journal_world_close(&fixture->world);
    log_init(LOG_ERROR + 1, "test");
    put_image(fixture->copy, &fixture->image);
    dump(fixture->copy, wanted);
    struct image *image = &fixture->image;
    for (int file = 0; file < FILES; file++) {
        for (size_t at = 0; at < image->len[file]; at += file == HEAD ? 7 : stride) {
            uint8_t right = image->data[file][at];
            image->data[file][at] ^= (uint8_t)(1u << (at * 5 + at / 512) % 8);
            put_image(fixture->copy, image);
            image->data[file][at] = right;
            bool is_sound = look_at(fixture, wanted, suffixes[file], at, false);
            n_sound += is_sound;
            n_damaged += !is_sound;
        }
    }
    for (int file = DB; file < HEAD; file++) {
        size_t whole = image->len[file];
        for (size_t len = 0; len < whole; len += stride) {
            image->len[file] = len;
            put_image(fixture->copy, image);
            bool is_sound = look_at(fixture, wanted, "cut", len, true);
            n_sound += is_sound;
            n_damaged += !is_sound;
        }
        image->len[file] = whole;
    }
    print_message("every %zu of %zu + %zu bytes: %zu harmless, %zu named\n", stride, image->len[DB], image->len[WAL], n_sound, n_damaged);
    assert_true(n_damaged > 60);
}

int main(void)
{
    log_init(LOG_ERROR, "test");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_journal_in_use_and_one_that_was_closed_are_sound, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_row_that_was_changed_is_named_when_it_is_read_and_by_verify, setup, teardown),
        cmocka_unit_test_setup_teardown(test_every_kind_of_row_is_checked_when_it_is_read, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_row_that_is_gone_older_or_back_is_found, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_log_that_lost_its_end_is_refused_and_left_as_it_is, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_wrong_frame_with_transactions_behind_it_is_refused_without_a_head_too, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_file_that_was_cut_is_refused_unless_the_log_has_what_it_lacks, setup, teardown),
        cmocka_unit_test_setup_teardown(test_the_tail_of_a_transaction_that_never_ended_is_cut, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_head_that_is_missing_garbled_old_or_another_journals_is_made_anew, setup, teardown),
        cmocka_unit_test_setup_teardown(test_an_empty_file_where_there_was_a_journal_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_journal_of_version_2_is_chained_as_it_is, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_journal_of_version_1_is_taken_over, setup, teardown),
        cmocka_unit_test_setup_teardown(test_each_bit_of_the_header_that_is_wrong_is_harmless_or_named, setup, teardown),
        cmocka_unit_test_setup_teardown(test_each_byte_that_is_wrong_and_each_length_is_harmless_or_named, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
