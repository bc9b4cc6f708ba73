#include "env/journal.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <sqlite3.h>

#include "base/counters.h"
#include "base/log.h"
#include "base/loop.h"

struct fixture {
    struct loop *loop;
    struct journal *journal;
    char dir[64], path[96];
    unsigned verdicts, wanted;
    enum amp_code last;
};

static enum amp_code open_journal(struct fixture *fixture, struct amp_error *err)
{
    return journal_open(fixture->loop, fixture->path, &fixture->journal, err);
}

static int setup(void **state)
{
    struct fixture *fixture = calloc(1, sizeof *fixture);
    struct amp_error err = {0};
    strcpy(fixture->dir, "/tmp/amesh-journal-XXXXXX");
    assert_non_null(mkdtemp(fixture->dir));
    snprintf(fixture->path, sizeof fixture->path, "%s/journal.db", fixture->dir);
    fixture->loop = loop_new();
    if (open_journal(fixture, &err) != AMP_OK)
        fail_msg("%s", err.message);
    *state = fixture;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *fixture = *state;
    char command[96];
    journal_close(fixture->journal);
    loop_free(fixture->loop);
    snprintf(command, sizeof command, "rm -rf %s", fixture->dir);
    assert_int_equal(system(command), 0);
    free(fixture);
    return 0;
}

static void on_commit(void *ctx, enum amp_code code)
{
    struct fixture *fixture = ctx;
    fixture->last = code;
    if (++fixture->verdicts == fixture->wanted)
        loop_stop(fixture->loop, 0);
}

static void wait_for(struct fixture *fixture, unsigned verdicts)
{
    fixture->wanted = verdicts;
    if (fixture->verdicts < verdicts)
        (void)loop_run(fixture->loop);
}

static struct journal_batch *task_batch(struct fixture *fixture, const char *id, int64_t at)
{
    struct journal_batch *batch = journal_batch_new(fixture->journal);
    struct journal_row *row = journal_batch_add(batch, JOURNAL_TASK);
    row->task = journal_batch_text(batch, id);
    row->context = "c-1";
    row->agent = "up";
    row->from = "me";
    row->state = AMP__TASK_STATE__TASK_STATE_SUBMITTED;
    row->is_durable = row->is_open = true;
    row->at_unix_ms = at;
    row->request = journal_batch_bytes(batch, amp_bytes_of("request"));
    return batch;
}

static void add_events(struct journal_batch *batch, const char *task, uint32_t seq, uint32_t count)
{
    struct journal_row *row = journal_batch_add(batch, JOURNAL_EVENT);
    row->task = journal_batch_text(batch, task);
    row->seq = seq;
    row->count = count;
    row->body = amp_bytes_of("body");
}

static void must_write(struct fixture *fixture, struct journal_batch *batch)
{
    assert_int_equal(journal_write(fixture->journal, batch, on_commit, fixture), AMP_OK);
}

static void write_now(struct fixture *fixture, struct journal_batch *batch)
{
    unsigned before = fixture->verdicts;
    must_write(fixture, batch);
    wait_for(fixture, before + 1);
}

struct seen {
    unsigned count;
    uint32_t seqs[64];
    char ids[64][32];
    struct journal_row last;
    char request[32], body[32], attempts[32];
};

static void keep(char *to, struct amp_bytes bytes)
{
    snprintf(to, 32, "%.*s", (int)bytes.len, bytes.len ? (const char *)bytes.data : "");
}

static bool on_row(void *ctx, const struct journal_row *row)
{
    struct seen *seen = ctx;
    assert_true(seen->count < 64);
    seen->seqs[seen->count] = row->seq;
    const char *name = row->kind == JOURNAL_TASK || row->kind == JOURNAL_KEY ? row->task : row->kind == JOURNAL_DEATH ? row->instance : row->key;
    snprintf(seen->ids[seen->count++], 32, "%s", name ? name : "");
    seen->last = *row;
    keep(seen->request, row->request);
    keep(seen->body, row->body);
    snprintf(seen->attempts, sizeof seen->attempts, "%s", row->attempts ? row->attempts : "");
    return true;
}

static struct seen tasks(struct fixture *fixture, const struct journal_query *query, uint32_t *total)
{
    struct seen seen = {0};
    struct amp_error err = {0};
    if (journal_tasks(fixture->journal, query, on_row, &seen, total, &err) != AMP_OK)
        fail_msg("%s", err.message);
    return seen;
}

static void reopen(struct fixture *fixture)
{
    struct amp_error err = {0};
    journal_close(fixture->journal);
    if (open_journal(fixture, &err) != AMP_OK)
        fail_msg("%s", err.message);
}

static void test_what_was_committed_is_there_after_opening_again(void **state)
{
    struct fixture *fixture = *state;
    struct journal_batch *batch = task_batch(fixture, "t-1", 100);
    add_events(batch, "t-1", 1, 1);
    write_now(fixture, batch);
    assert_int_equal(fixture->last, AMP_OK);
    reopen(fixture);
    struct journal_query query = {.only_open = true};
    struct seen seen = tasks(fixture, &query, NULL);
    assert_int_equal(seen.count, 1);
    assert_string_equal(seen.ids[0], "t-1");
    assert_string_equal(seen.request, "request");
    assert_true(seen.last.is_durable && seen.last.is_open);
    assert_int_equal(seen.last.at_unix_ms, 100);
}

static void test_a_task_keeps_what_a_later_row_does_not_say(void **state)
{
    struct fixture *fixture = *state;
    write_now(fixture, task_batch(fixture, "t-1", 100));
    struct journal_batch *batch = journal_batch_new(fixture->journal);
    struct journal_row *row = journal_batch_add(batch, JOURNAL_TASK);
    row->task = "t-1";
    row->context = "other"; /* what a task is does not change */
    row->state = AMP__TASK_STATE__TASK_STATE_COMPLETED;
    row->at_unix_ms = 999;
    row->count = 7;
    row->attempts = "[1]";
    row->body = amp_bytes_of("record");
    write_now(fixture, batch);
    struct journal_query query = {.task = "t-1"};
    struct seen seen = tasks(fixture, &query, NULL);
    assert_string_equal(seen.request, "request");
    assert_string_equal(seen.body, "record");
    assert_string_equal(seen.attempts, "[1]");
    assert_int_equal(seen.last.at_unix_ms, 100);
    assert_int_equal(seen.last.count, 7);
    assert_false(seen.last.is_open);
    query = (struct journal_query){.context = "c-1"};
    assert_int_equal(tasks(fixture, &query, NULL).count, 1);
}

static void test_many_batches_that_wait_are_few_commits(void **state)
{
    struct fixture *fixture = *state;
    uint64_t before = counter_get(COUNTER_journal_commits);
    char id[16];
    for (unsigned i = 0; i < 2000; i++) {
        snprintf(id, sizeof id, "t-%u", i);
        must_write(fixture, task_batch(fixture, id, i + 1));
    }
    assert_int_equal(journal_waiting(fixture->journal), 2000);
    wait_for(fixture, 2000);
    assert_int_equal(journal_waiting(fixture->journal), 0);
    uint64_t commits = counter_get(COUNTER_journal_commits) - before;
    assert_true(commits >= 2000 / JOURNAL_GROUP_MAX);
    assert_true(commits < 500);
    struct journal_counts counts;
    assert_int_equal(journal_count(fixture->journal, &counts), AMP_OK);
    assert_int_equal(counts.tasks, 2000);
    assert_int_equal(counts.tasks_open, 2000);
}

static void test_closing_commits_what_waits_and_gives_the_verdicts(void **state)
{
    struct fixture *fixture = *state;
    char id[16];
    for (unsigned i = 0; i < 300; i++) {
        snprintf(id, sizeof id, "t-%u", i);
        must_write(fixture, task_batch(fixture, id, i + 1));
    }
    reopen(fixture);
    assert_int_equal(fixture->verdicts, 300);
    struct journal_counts counts;
    assert_int_equal(journal_count(fixture->journal, &counts), AMP_OK);
    assert_int_equal(counts.tasks, 300);
}

/* Whatever the umask, and also a file that was there before. */
static void test_nobody_else_can_read_it(void **state)
{
    static const char *const suffixes[] = {"", "-wal", "-shm", ".lock"};
    struct fixture *fixture = *state;
    char name[128];
    struct stat info;
    mode_t old = umask(0);
    journal_close(fixture->journal);
    fixture->journal = NULL;
    assert_int_equal(chmod(fixture->path, 0644), 0);
    assert_int_equal(open_journal(fixture, NULL), AMP_OK);
    write_now(fixture, task_batch(fixture, "t-1", 1));
    umask(old);
    for (size_t i = 0; i < sizeof suffixes / sizeof suffixes[0]; i++) {
        snprintf(name, sizeof name, "%s%s", fixture->path, suffixes[i]);
        assert_int_equal(stat(name, &info), 0);
        assert_int_equal(info.st_mode & 0777, 0600);
    }
}

static void test_a_second_opening_is_refused_while_the_first_lives(void **state)
{
    struct fixture *fixture = *state;
    struct journal *second = NULL;
    struct amp_error err = {0};
    assert_int_equal(journal_open(fixture->loop, fixture->path, &second, &err), AMP_RUNNING);
    assert_null(second);
    assert_non_null(strstr(err.message, fixture->path));
    pid_t pid = fork(); /* another process too */
    if (pid == 0) {
        struct loop *loop = loop_new();
        _exit(journal_open(loop, fixture->path, &second, NULL) == AMP_RUNNING ? 0 : 1);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    write_now(fixture, task_batch(fixture, "t-1", 1)); /* the first is none the worse */
    assert_int_equal(fixture->last, AMP_OK);
}

static void test_a_file_that_is_no_journal_is_refused_with_what_to_do(void **state)
{
    struct fixture *fixture = *state;
    struct journal *other = NULL;
    struct amp_error err = {0};
    char path[96];
    snprintf(path, sizeof path, "%s/garbage", fixture->dir);
    FILE *file = fopen(path, "w");
    for (int i = 0; i < 1000; i++)
        fputs("this is not a database\n", file);
    fclose(file);
    assert_int_equal(journal_open(fixture->loop, path, &other, &err), AMP_CORRUPT);
    assert_true(err.hint[0]);
    snprintf(path, sizeof path, "%s/no/such/dir/journal.db", fixture->dir);
    assert_int_equal(journal_open(fixture->loop, path, &other, &err), AMP_JOURNAL);
}

static void test_a_journal_of_a_newer_version_is_refused(void **state)
{
    struct fixture *fixture = *state;
    struct amp_error err = {0};
    sqlite3 *db;
    journal_close(fixture->journal);
    fixture->journal = NULL;
    assert_int_equal(sqlite3_open(fixture->path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, "PRAGMA user_version = 99", NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
    assert_int_equal(open_journal(fixture, &err), AMP_JOURNAL);
    assert_non_null(strstr(err.message, "99"));
    fixture->journal = NULL;
}

static void test_tasks_come_in_pages_newest_or_oldest_first(void **state)
{
    struct fixture *fixture = *state;
    static const char *const ids[] = {"t-a", "t-b", "t-c", "t-d", "t-e"};
    static const int64_t at[] = {10, 20, 20, 20, 30};
    for (size_t i = 0; i < 5; i++)
        write_now(fixture, task_batch(fixture, ids[i], at[i]));
    uint32_t total = 0;
    struct journal_query query = {.limit = 2};
    struct seen seen = tasks(fixture, &query, &total);
    assert_int_equal(total, 5);
    assert_int_equal(seen.count, 2);
    assert_string_equal(seen.ids[0], "t-e");
    assert_string_equal(seen.ids[1], "t-d");
    query.from_unix_ms = 20;
    query.from_task = "t-d";
    seen = tasks(fixture, &query, &total);
    assert_int_equal(total, 5);
    assert_string_equal(seen.ids[0], "t-c");
    assert_string_equal(seen.ids[1], "t-b");
    query.oldest_first = true;
    seen = tasks(fixture, &query, NULL);
    assert_int_equal(seen.count, 1);
    assert_string_equal(seen.ids[0], "t-e");
}

static void test_tasks_are_filtered_by_what_is_asked(void **state)
{
    struct fixture *fixture = *state;
    for (int i = 0; i < 4; i++) {
        char id[16];
        snprintf(id, sizeof id, "t-%d", i);
        struct journal_batch *batch = journal_batch_new(fixture->journal);
        struct journal_row *row = journal_batch_add(batch, JOURNAL_TASK);
        row->task = journal_batch_text(batch, id);
        row->context = i % 2 ? "odd" : "even";
        row->agent = i < 2 ? "low" : "high";
        row->parent = i == 3 ? "t-0" : NULL;
        row->state = i == 1 ? AMP__TASK_STATE__TASK_STATE_FAILED : AMP__TASK_STATE__TASK_STATE_WORKING;
        row->is_open = i != 1;
        row->is_durable = i == 2;
        row->at_unix_ms = i + 1;
        write_now(fixture, batch);
    }
    static const struct {
        struct journal_query query;
        unsigned count;
    } table[] = {
        {{.context = "odd"}, 2},
        {{.agent = "low"}, 2},
        {{.agent = ""}, 4},
        {{.parent = "t-0"}, 1},
        {{.state = AMP__TASK_STATE__TASK_STATE_FAILED}, 1},
        {{.only_open = true}, 3},
        {{.only_durable = true}, 1},
        {{.only_open = true, .agent = "low", .context = "even"}, 1},
        {{.task = "t-9"}, 0},
        {{.agent = "low' OR '1'='1"}, 0},
    };
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        uint32_t total = 99;
        assert_int_equal(tasks(fixture, &table[i].query, &total).count, table[i].count);
        assert_int_equal(total, table[i].count);
    }
}

static void test_events_are_read_from_the_row_that_holds_the_number(void **state)
{
    struct fixture *fixture = *state;
    struct journal_batch *batch = journal_batch_new(fixture->journal);
    add_events(batch, "t-1", 1, 3);
    add_events(batch, "t-1", 4, 1);
    add_events(batch, "t-1", 5, 10);
    add_events(batch, "t-2", 1, 1);
    write_now(fixture, batch);
    static const struct {
        uint32_t from;
        unsigned count;
        uint32_t first;
    } table[] = {{1, 3, 1}, {3, 3, 1}, {4, 2, 4}, {14, 1, 5}, {15, 0, 0}};
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        struct seen seen = {0};
        assert_int_equal(journal_events(fixture->journal, "t-1", table[i].from, on_row, &seen, NULL), AMP_OK);
        assert_int_equal(seen.count, table[i].count);
        if (seen.count)
            assert_int_equal(seen.seqs[0], table[i].first);
    }
}

static void test_keys_belong_to_their_sender(void **state)
{
    struct fixture *fixture = *state;
    struct journal_batch *batch = journal_batch_new(fixture->journal);
    struct journal_row *row = journal_batch_add(batch, JOURNAL_KEY);
    row->scope = "me";
    row->key = "k";
    row->task = "t-1";
    row->body = amp_bytes_of("digest");
    write_now(fixture, batch);
    struct seen seen = {0};
    assert_int_equal(journal_key(fixture->journal, "me", "k", on_row, &seen), AMP_OK);
    assert_string_equal(seen.ids[0], "t-1");
    assert_string_equal(seen.body, "digest");
    assert_int_equal(journal_key(fixture->journal, "you", "k", on_row, &seen), AMP_NOT_FOUND);
}

static void put(struct fixture *fixture, const char *owner, const char *key, uint32_t version)
{
    struct journal_batch *batch = journal_batch_new(fixture->journal);
    struct journal_row *row = journal_batch_add(batch, JOURNAL_KV);
    row->scope = "context";
    row->owner = owner;
    row->key = key;
    row->version = version;
    if (version)
        row->body = amp_bytes_of("{}");
    write_now(fixture, batch);
}

static void test_memory_is_listed_by_prefix_and_forgets_what_is_deleted(void **state)
{
    struct fixture *fixture = *state;
    put(fixture, "c-1", "a/1", 1);
    put(fixture, "c-1", "a/2", 1);
    put(fixture, "c-1", "a%", 1);
    put(fixture, "c-1", "b", 1);
    put(fixture, "c-2", "a/3", 1);
    put(fixture, "c-1", "a/1", 2);
    put(fixture, "c-1", "a/2", 0);
    struct seen seen = {0};
    struct journal_kv_query query = {.scope = "context", .owner = "c-1", .key = "a", .is_prefix = true};
    assert_int_equal(journal_kv(fixture->journal, &query, on_row, &seen), AMP_OK);
    assert_int_equal(seen.count, 2);
    assert_string_equal(seen.ids[0], "a%");
    assert_string_equal(seen.ids[1], "a/1");
    assert_int_equal(seen.last.version, 2);
    query = (struct journal_kv_query){.scope = "context", .owner = "c-1", .key = "a/2"};
    assert_int_equal(journal_kv(fixture->journal, &query, on_row, &seen), AMP_NOT_FOUND);
    uint32_t count = 0;
    assert_int_equal(journal_count_keys(fixture->journal, "context", "c-1", &count), AMP_OK);
    assert_int_equal(count, 3);
}

static void test_the_newest_deaths_of_an_agent_are_kept(void **state)
{
    struct fixture *fixture = *state;
    char instance[16];
    for (unsigned i = 0; i < JOURNAL_DEATHS_MAX + 10; i++) {
        struct journal_batch *batch = journal_batch_new(fixture->journal);
        struct journal_row *row = journal_batch_add(batch, JOURNAL_DEATH);
        snprintf(instance, sizeof instance, "i-%u", i);
        row->agent = "up";
        row->instance = journal_batch_text(batch, instance);
        row->body = amp_bytes_of("death");
        must_write(fixture, batch);
    }
    wait_for(fixture, JOURNAL_DEATHS_MAX + 10);
    struct seen seen = {0};
    assert_int_equal(journal_deaths(fixture->journal, "up", 20, on_row, &seen, NULL), AMP_OK);
    assert_int_equal(seen.count, 20);
    snprintf(instance, sizeof instance, "i-%u", JOURNAL_DEATHS_MAX + 9);
    assert_string_equal(seen.ids[0], instance);
    sqlite3 *db;
    sqlite3_stmt *statement;
    assert_int_equal(sqlite3_open(fixture->path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_prepare_v2(db, "SELECT count(*) FROM deaths", -1, &statement, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_step(statement), SQLITE_ROW);
    assert_int_equal(sqlite3_column_int(statement, 0), JOURNAL_DEATHS_MAX);
    sqlite3_finalize(statement);
    sqlite3_close(db);
}

/* A disk that takes nothing more: files may not grow past what they are. */
static void limit_files(rlim_t bytes)
{
    struct rlimit limit;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
    limit.rlim_cur = bytes;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

static void test_after_a_failed_write_nothing_is_taken_until_it_is_opened_again_and_reads_go_on(void **state)
{
    struct fixture *fixture = *state;
    write_now(fixture, task_batch(fixture, "t-1", 1));
    signal(SIGXFSZ, SIG_IGN);
    limit_files(4096);
    write_now(fixture, task_batch(fixture, "t-2", 2));
    assert_int_equal(fixture->last, AMP_JOURNAL);
    limit_files(RLIM_INFINITY);
    assert_non_null(journal_failure(fixture->journal));
    /* There is room again, but what a failed fsync left behind is not known. */
    struct journal_batch *batch = task_batch(fixture, "t-3", 3);
    assert_int_equal(journal_write(fixture->journal, batch, on_commit, fixture), AMP_JOURNAL);
    journal_batch_free(batch);
    struct journal_query query = {0};
    struct seen seen = tasks(fixture, &query, NULL);
    assert_int_equal(seen.count, 1);
    assert_string_equal(seen.ids[0], "t-1");
    reopen(fixture);
    assert_null(journal_failure(fixture->journal));
    write_now(fixture, task_batch(fixture, "t-4", 4));
    assert_int_equal(fixture->last, AMP_OK);
    assert_int_equal(tasks(fixture, &query, NULL).count, 2);
}

static void test_a_batch_is_all_or_nothing(void **state)
{
    struct fixture *fixture = *state;
    struct journal_batch *batch = task_batch(fixture, "t-1", 1);
    add_events(batch, "t-1", 1, 1);
    add_events(batch, "t-1", 1, 1); /* the number is taken */
    write_now(fixture, batch);
    assert_int_equal(fixture->last, AMP_JOURNAL);
    struct journal_query query = {0};
    assert_int_equal(tasks(fixture, &query, NULL).count, 0);
}

/* Written by a process that is killed right after the verdict. */
static void test_kill_9_after_the_verdict_loses_nothing(void **state)
{
    struct fixture *fixture = *state;
    struct amp_error err = {0};
    int pipes[2];
    char byte;
    journal_close(fixture->journal);
    fixture->journal = NULL;
    assert_int_equal(pipe(pipes), 0);
    pid_t pid = fork();
    if (pid == 0) {
        fixture->loop = loop_new();
        if (open_journal(fixture, NULL) != AMP_OK)
            _exit(1);
        write_now(fixture, task_batch(fixture, "t-1", 1));
        (void)!write(pipes[1], "", 1);
        pause();
    }
    close(pipes[1]);
    assert_int_equal(read(pipes[0], &byte, 1), 1);
    close(pipes[0]);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    assert_int_equal(open_journal(fixture, &err), AMP_OK);
    struct journal_query query = {0};
    assert_int_equal(tasks(fixture, &query, NULL).count, 1);
}

int main(void)
{
    log_init(LOG_ERROR, "test");
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_what_was_committed_is_there_after_opening_again),
        TEST(test_a_task_keeps_what_a_later_row_does_not_say),
        TEST(test_many_batches_that_wait_are_few_commits),
        TEST(test_closing_commits_what_waits_and_gives_the_verdicts),
        TEST(test_nobody_else_can_read_it),
        TEST(test_a_second_opening_is_refused_while_the_first_lives),
        TEST(test_a_file_that_is_no_journal_is_refused_with_what_to_do),
        TEST(test_a_journal_of_a_newer_version_is_refused),
        TEST(test_tasks_come_in_pages_newest_or_oldest_first),
        TEST(test_tasks_are_filtered_by_what_is_asked),
        TEST(test_events_are_read_from_the_row_that_holds_the_number),
        TEST(test_keys_belong_to_their_sender),
        TEST(test_memory_is_listed_by_prefix_and_forgets_what_is_deleted),
        TEST(test_the_newest_deaths_of_an_agent_are_kept),
        TEST(test_after_a_failed_write_nothing_is_taken_until_it_is_opened_again_and_reads_go_on),
        TEST(test_a_batch_is_all_or_nothing),
        TEST(test_kill_9_after_the_verdict_loses_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
