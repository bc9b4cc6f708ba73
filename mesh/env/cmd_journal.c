/* amesh env verify, backup, restore, export, import, prune: the journal as a file, with or without an environment on it. */
#include "commands.h"
#include "env/env.h"
#include "env/journal.h"
#include "env/journal_files.h"

#include "base/clock.h"
#include "base/home.h"
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define JOURNAL_OPTION {.name = "journal", .arg = "FILE", .help = "the journal (default: journal.db in the home)", .complete = "files"}

struct at { /* which journal, and how to speak */
    char path[512];
    bool is_json;
    bool is_named;     /* it is not the home's: what is said of it names it */
    bool is_verifying; /* and nothing is said of verifying it */
};

/* The home itself may be made: an export or a backup is what somebody comes to a new host with. */
static enum amp_code find_journal(const struct command *command, struct command_args *args, struct at *at, bool creates, struct amp_error *reterr)
{
    struct home home;
    const char *path = command_value(command, args, "journal");
    at->is_json = command_flag(command, args, "json");
    log_init(log_level_from_env(LOG_ERROR), "amesh-env");
    if (path) {
        snprintf(at->path, sizeof at->path, "%s", path);
        at->is_named = true;
        return strlen(path) < sizeof at->path ? AMP_OK : amp_error_set(reterr, AMP_INVALID, "journal", "the path is too long");
    }
    enum amp_code code = home_open(&home, command_value(command, args, "home"), NULL, creates, reterr);
    if (code == AMP_OK)
        snprintf(at->path, sizeof at->path, "%s/journal.db", home.path);
    return code;
}

static void hint_damage(const struct at *at, struct amp_error *err)
{
    char name[sizeof at->path + 16] = "";
    if (at->is_named)
        snprintf(name, sizeof name, " --journal %s", at->path);
    if (at->is_verifying)
        amp_error_hint(err, "restore a backup: amesh env restore FILE; or save what is sound: amesh env export%.180s --skip-corrupt sound.jsonl", name);
    else
        amp_error_hint(err, "amesh env verify%.180s says all that is damaged; restore a backup, or save what is sound: amesh env export%.180s --skip-corrupt", name, name);
}

/* No error without a next step. */
static int fail(const struct at *at, struct amp_error *err)
{
    static const struct {
        enum amp_code code;
        const char *hint;
    } hints[] = {
        {AMP_NOT_FOUND, "look at how it is written, and whether this user may read it"},
        {AMP_JOURNAL, "look whether its disk has room, and whether this user may write there"},
        {AMP_CONFLICT, "another home, or another file: amesh help env"},
        {AMP_TOO_LARGE, "in parts: amesh env export --context ID, or --since TIME"},
    };
    if (err->code == AMP_CORRUPT && (!err->hint[0] || strstr(err->hint, "amesh env verify"))) /* what was said of other files than damaged ones stays */
        hint_damage(at, err);
    for (size_t i = 0; i < sizeof hints / sizeof hints[0] && !err->hint[0]; i++)
        if (hints[i].code == err->code)
            amp_error_hint(err, "%s", hints[i].hint);
    if (!err->hint[0])
        amp_error_hint(err, "amesh help env");
    return command_fail(at->is_json, err);
}

/* ---- verify ------------------------------------------------------------------------------------------------------------- */

struct verifying {
    struct at at;
    struct amp_buf out; /* JSON of the findings */
    bool is_terminal;
};

static void add_member(struct amp_buf *out, const char *name, const char *text)
{
    (void)amp_buf_printf(out, "%s\"%s\":", out->len && out->data[out->len - 1] != '{' ? "," : "", name);
    (void)amp_json_append_string(out, amp_bytes_of(text));
}

static void clear_line(const struct verifying *verifying)
{
    if (verifying->is_terminal)
        fputs("\r\033[K", stderr);
}

static void on_finding(void *ctx, const struct journal_finding *finding)
{
    struct verifying *verifying = ctx;
    clear_line(verifying);
    if (verifying->at.is_json) {
        if (verifying->out.len)
            (void)amp_buf_append(&verifying->out, ",", 1);
        (void)amp_buf_append(&verifying->out, "{", 1);
        add_member(&verifying->out, "table", finding->table);
        add_member(&verifying->out, "row", finding->row ? finding->row : "");
        (void)amp_buf_printf(&verifying->out, ",\"entry\":%" PRIu64, finding->entry);
        add_member(&verifying->out, "text", finding->text);
        (void)amp_buf_append(&verifying->out, "}", 1);
        return;
    }
    struct amp_buf line;
    amp_buf_init(&line, 4096);
    (void)amp_text_sanitize(&line, amp_bytes_of(finding->row && finding->row[0] ? finding->row : finding->table[0] ? finding->table : "the file"), true);
    printf("damaged: %.*s", (int)line.len, line.len ? (const char *)line.data : "");
    amp_buf_reset(&line);
    (void)amp_text_sanitize(&line, amp_bytes_of(finding->text), true);
    if (finding->entry)
        printf(" (chain entry %" PRIu64 ")", finding->entry);
    printf(": %.*s\n", (int)line.len, line.len ? (const char *)line.data : "");
    amp_buf_done(&line);
}

static void on_progress(void *ctx, uint64_t done, uint64_t total)
{
    const struct verifying *verifying = ctx;
    if (verifying->is_terminal)
        fprintf(stderr, "\r%" PRIu64 " of %" PRIu64 " rows", done, total);
}

static void print_report(struct verifying *verifying, const struct journal_report *report)
{
    const char *path = verifying->at.path;
    if (verifying->at.is_json) {
        struct amp_buf out;
        amp_buf_init(&out, SIZE_MAX / 2);
        (void)amp_buf_printf(&out, "{\"sound\":%s%s", report->findings ? "false" : "true", report->is_empty ? ",\"empty\":true" : "");
        add_member(&out, "journal", path);
        add_member(&out, "id", report->id);
        (void)amp_buf_printf(&out, ",\"rows\":%" PRIu64 ",\"entries\":%" PRIu64 ",\"bytes\":%" PRIu64 ",\"running\":%s", report->rows, report->entries, report->bytes,
                             report->is_running ? "true" : "false");
        (void)amp_buf_printf(&out, ",\"entry\":%" PRIu64 ",\"incomplete\":%" PRIu64, report->n, report->incomplete);
        add_member(&out, "hash", report->hash);
        (void)amp_buf_printf(&out, ",\"head\":%s,\"framesCut\":%u,\"files\":%" PRIu64 ",\"fileBytes\":%" PRIu64 ",\"findingsCount\":%" PRIu64 ",\"findings\":[%.*s]}\n", report->has_head ? "true" : "false",
                             report->frames_cut, report->files, report->file_bytes, report->findings, (int)verifying->out.len, verifying->out.len ? (const char *)verifying->out.data : "");
        fwrite(out.data, 1, out.len, stdout);
        amp_buf_done(&out);
        return;
    }
    if (report->is_empty) {
        printf("empty: nothing has been written to it yet; an environment that starts on it begins here\n");
        return;
    }
    if (!report->rows && !report->id[0])
        return; /* it could not be looked at */
    printf("%s: %" PRIu64 " rows, %" PRIu64 " chain entries, the last is %" PRIu64 " %.16s… (journal %s%s)\n", report->findings ? "looked at" : "sound", report->rows,
           report->entries, report->n, report->hash, report->id, report->is_running ? ", an environment has it" : "");
    if (report->files)
        printf("its files: %" PRIu64 " of %" PRIu64 " bytes\n", report->files, report->file_bytes);
    if (report->incomplete)
        printf("%" PRIu64 " tasks are known to lack events; amesh task show says so of each\n", report->incomplete);
    if (report->frames_cut)
        printf("a transaction that was not committed ends its log (%u pages): the next environment cuts it off\n", report->frames_cut);
    if (!report->findings && !report->has_head)
        printf("%s-head is missing or not its own: that nothing was cut off its end is not known\n", path);
}

static int run_verify(const struct command *command, struct command_args *args)
{
    static const struct journal_verify_handlers handlers = {.on_finding = on_finding, .on_progress = on_progress};
    struct verifying verifying = {.is_terminal = isatty(STDERR_FILENO)};
    struct journal_report report = {0};
    struct amp_error err = {0};
    amp_buf_init(&verifying.out, SIZE_MAX / 2);
    enum amp_code code = find_journal(command, args, &verifying.at, false, &err);
    verifying.at.is_verifying = true;
    if (code == AMP_OK)
        code = journal_verify(verifying.at.path, &handlers, &verifying, &report, &err);
    if (code == AMP_OK && !report.is_empty)
        code = journal_verify_files(verifying.at.path, &handlers, &verifying, &report, &err);
    clear_line(&verifying);
    if (code == AMP_OK || code == AMP_CORRUPT)
        print_report(&verifying, &report);
    amp_buf_done(&verifying.out);
    return code == AMP_OK ? 0 : fail(&verifying.at, &err);
}

/* ---- backup, restore ----------------------------------------------------------------------------------------------------- */

static enum amp_code find_with_file(const struct command *command, struct command_args *args, struct at *at, bool creates, struct amp_error *reterr)
{
    if (args->n_rest == 1)
        return find_journal(command, args, at, creates, reterr);
    at->is_json = command_flag(command, args, "json");
    amp_error_set(reterr, AMP_INVALID, "", "which file?");
    amp_error_hint(reterr, "amesh %s FILE", command->name);
    return AMP_INVALID;
}

static int run_backup(const struct command *command, struct command_args *args)
{
    static const struct journal_verify_handlers handlers = {.on_finding = on_finding, .on_progress = on_progress};
    struct verifying verifying = {.is_terminal = isatty(STDERR_FILENO)};
    struct journal_report report = {0};
    struct amp_error err = {0};
    amp_buf_init(&verifying.out, SIZE_MAX / 2);
    enum amp_code code = find_with_file(command, args, &verifying.at, false, &err);
    if (code == AMP_OK) {
        code = journal_backup(verifying.at.path, args->rest[0], clock_unix_ms(), &handlers, &verifying, &report, &err);
        if (report.bytes > 0) { /* it is the copy that was looked at */
            snprintf(verifying.at.path, sizeof verifying.at.path, "%s", args->rest[0]);
            verifying.at.is_named = true;
        }
        report.has_head = true; /* a copy has none */
        clear_line(&verifying);
        if (code == AMP_OK || code == AMP_CORRUPT)
            print_report(&verifying, &report);
    }
    amp_buf_done(&verifying.out);
    return code == AMP_OK ? 0 : fail(&verifying.at, &err);
}

/* Of a restore: is the backup what is wrong, and not what it would replace? */
static bool is_about(const struct amp_error *err, const char *path)
{
    return (err->code == AMP_CORRUPT || err->code == AMP_NOT_FOUND) && strstr(err->message, path) != NULL;
}

static int run_restore(const struct command *command, struct command_args *args)
{
    static const struct journal_verify_handlers handlers = {.on_finding = on_finding};
    struct verifying verifying = {0};
    struct journal_report report = {0};
    struct amp_error err = {0};
    enum amp_code code = find_with_file(command, args, &verifying.at, true, &err);
    if (code == AMP_OK)
        code = journal_restore(verifying.at.path, args->rest[0], clock_unix_ms(), &report, &err);
    report.has_head = true;
    if (code == AMP_OK && !report.is_empty) /* it is the journal now, whatever is said of its files */
        (void)!journal_verify_files(verifying.at.path, &handlers, &verifying, &report, &err);
    if (code == AMP_OK)
        print_report(&verifying, &report);
    if (code != AMP_OK && args->n_rest == 1 && is_about(&err, args->rest[0])) {
        snprintf(verifying.at.path, sizeof verifying.at.path, "%s", args->rest[0]);
        verifying.at.is_named = true;
        err.hint[0] = '\0'; /* it speaks of --journal, which is the other one */
    }
    return code == AMP_OK ? 0 : fail(&verifying.at, &err);
}

/* ---- export, import ------------------------------------------------------------------------------------------------------ */

static enum amp_code parse_since(const char *text, int64_t *ret, struct amp_error *reterr)
{
    struct env_options options = {0};
    if (!text || amp_time_parse(text, ret) == AMP_OK)
        return AMP_OK;
    if (env_retain_parse(&options, text, NULL, NULL) == AMP_OK) {
        *ret = clock_unix_ms() - options.retain_age_ms;
        return AMP_OK;
    }
    amp_error_set(reterr, AMP_INVALID, "since", "--since: \"%s\" is neither a moment nor a time ago", text);
    amp_error_hint(reterr, "such as 2026-12-01T00:00:00Z, 7d, 12h");
    return AMP_INVALID;
}

static void on_missing(void *ctx, const char *digest, const char *owner, const char *why)
{
    const struct at *at = ctx;
    if (!at->is_json)
        fprintf(stderr, "left out: file %s of %s: %s\n", digest, owner, why);
}

static void print_exported(const struct at *at, const struct journal_export_counts *counts)
{
    if (at->is_json)
        fprintf(stderr, "{\"rows\":%" PRIu64 ",\"skipped\":%" PRIu64 ",\"tablesCut\":%" PRIu64 ",\"files\":%" PRIu64 ",\"fileBytes\":%" PRIu64 ",\"filesMissing\":%" PRIu64 "}\n", counts->rows,
                counts->skipped, counts->unread, counts->files, counts->file_bytes, counts->files_missing);
    else
        fprintf(stderr, "exported %" PRIu64 " rows\n", counts->rows);
    if (!at->is_json && counts->files)
        fprintf(stderr, "and %" PRIu64 " files of %" PRIu64 " bytes\n", counts->files, counts->file_bytes);
    if (!at->is_json && (counts->skipped || counts->unread))
        fprintf(stderr, "left out: %" PRIu64 " damaged rows, and what stands behind damage in %" PRIu64 " tables\n", counts->skipped, counts->unread);
}

static int run_export(const struct command *command, struct command_args *args)
{
    struct at at = {0};
    struct amp_error err = {0};
    struct journal_export_counts counts;
    struct journal_export_options options = {.context = command_value(command, args, "context"), .skips_corrupt = command_flag(command, args, "skip-corrupt"), .on_missing = on_missing, .ctx = &at};
    const char *name = args->n_rest > 0 ? args->rest[0] : "-";
    bool is_stdout = strcmp(name, "-") == 0;
    enum amp_code code = find_journal(command, args, &at, false, &err);
    if (code == AMP_OK && args->n_rest > 1)
        code = amp_error_set(&err, AMP_INVALID, "", "one file, or - for standard output");
    if (code == AMP_OK)
        code = parse_since(command_value(command, args, "since"), &options.since_unix_ms, &err);
    int fd = code == AMP_OK && !is_stdout ? open(name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600) : -1;
    FILE *out = is_stdout ? stdout : fd >= 0 ? fdopen(fd, "w") : NULL;
    if (code == AMP_OK && !out) {
        code = amp_error_set(&err, AMP_CONFLICT, "", "%s cannot be made: %s", name, strerror(errno));
        amp_error_hint(&err, "name a file that is not there yet, or - for standard output");
    }
    if (code == AMP_OK)
        code = journal_export(at.path, out, clock_unix_ms(), &options, &counts, &err);
    if (out && !is_stdout && (fsync(fd) != 0 || fclose(out) != 0) && code == AMP_OK)
        code = amp_error_set(&err, AMP_JOURNAL, "", "%s cannot be written: %s", name, strerror(errno));
    if (code != AMP_OK && fd >= 0)
        (void)unlink(name); /* a part of an export is none, and would be in the way of the next one */
    if (code == AMP_OK)
        print_exported(&at, &counts);
    return code == AMP_OK ? 0 : fail(&at, &err);
}

/* Of a file that is none, the end may never come, nor who writes it. */
static enum amp_code open_export(const char *name, FILE **ret, struct amp_error *reterr)
{
    struct stat st;
    int fd = open(name, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return amp_error_set(reterr, AMP_NOT_FOUND, "", "%s cannot be read: %s", name, strerror(errno));
    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && (*ret = fdopen(fd, "r")))
        return AMP_OK;
    close(fd);
    amp_error_set(reterr, AMP_INVALID, "", "%s is no regular file", name);
    amp_error_hint(reterr, "name the file of an export, or - for standard input");
    return AMP_INVALID;
}

#define LOST_SHOWN 100u

struct importing {
    struct at at;
    struct amp_buf lost; /* what is said of it, as text or JSON */
    uint64_t n_lost;
};

static void on_lost(void *ctx, const struct journal_lost *lost)
{
    struct importing *importing = ctx;
    struct amp_buf *out = &importing->lost;
    if (++importing->n_lost > LOST_SHOWN)
        return;
    if (importing->at.is_json) {
        (void)amp_buf_append(out, importing->n_lost > 1 ? ",{" : "{", importing->n_lost > 1 ? 2 : 1);
        add_member(out, "task", lost->task);
        if (lost->count)
            (void)amp_buf_printf(out, ",\"from\":%u,\"to\":%u", (unsigned)lost->first, (unsigned)(lost->first + lost->count - 1));
        (void)amp_buf_append(out, "}", 1);
        return;
    }
    (void)amp_buf_printf(out, "task ");
    (void)amp_text_sanitize(out, amp_bytes_of(lost->task), true);
    if (lost->count == 0)
        (void)amp_buf_printf(out, ": left out, its own row or too many of its events are lost\n");
    else if (lost->count == 1)
        (void)amp_buf_printf(out, ": event %u is lost, and says so\n", (unsigned)lost->first);
    else
        (void)amp_buf_printf(out, ": events %u to %u are lost, and say so\n", (unsigned)lost->first, (unsigned)(lost->first + lost->count - 1));
}

static void print_imported(struct importing *importing, const struct journal_import_counts *counts)
{
    const char *lost = importing->lost.len ? (const char *)importing->lost.data : "";
    int len = (int)importing->lost.len;
    if (importing->at.is_json) {
        printf("{\"added\":%" PRIu64 ",\"there\":%" PRIu64 ",\"tasks\":%" PRIu64 ",\"open\":%" PRIu64 ",\"leftOut\":%" PRIu64 ",\"files\":%" PRIu64 ",\"fileBytes\":%" PRIu64 ",\"eventsLost\":%" PRIu64
               ",\"tasksLost\":%" PRIu64 ",\"lost\":[%.*s]}\n",
               counts->added, counts->there, counts->tasks, counts->open, counts->left_out, counts->files, counts->file_bytes, counts->events_lost, counts->tasks_lost, len, lost);
        return;
    }
    printf("imported %" PRIu64 " rows, %" PRIu64 " tasks among them, %" PRIu64 " of those open; %" PRIu64 " rows were there already; %" PRIu64 " open tasks left out\n", counts->added,
           counts->tasks, counts->open, counts->there, counts->left_out);
    if (counts->files)
        printf("and %" PRIu64 " files of %" PRIu64 " bytes\n", counts->files, counts->file_bytes);
    printf("%.*s", len, lost);
    if (importing->n_lost > LOST_SHOWN)
        printf("and %" PRIu64 " more like that\n", importing->n_lost - LOST_SHOWN);
}

static int run_import(const struct command *command, struct command_args *args)
{
    struct importing importing = {0};
    struct amp_error err = {0};
    struct journal_import_counts counts;
    bool continues = command_flag(command, args, "continue"), ended = command_flag(command, args, "ended");
    const struct journal_import_options options = {.open = continues ? JOURNAL_OPEN_CONTINUED : ended ? JOURNAL_OPEN_LEFT_OUT : JOURNAL_OPEN_REFUSED, .lost = {on_lost, &importing}};
    enum amp_code code = find_with_file(command, args, &importing.at, true, &err);
    if (code == AMP_OK && continues && ended)
        code = amp_error_set(&err, AMP_INVALID, "ended", "either --continue or --ended");
    bool is_stdin = code == AMP_OK && strcmp(args->rest[0], "-") == 0;
    FILE *in = is_stdin ? stdin : NULL;
    if (code == AMP_OK && !is_stdin)
        code = open_export(args->rest[0], &in, &err);
    amp_buf_init(&importing.lost, 65536);
    if (code == AMP_OK)
        code = journal_import(importing.at.path, in, clock_unix_ms(), &options, &counts, &err);
    if (in && !is_stdin)
        fclose(in);
    if (code == AMP_OK)
        print_imported(&importing, &counts);
    amp_buf_done(&importing.lost);
    return code == AMP_OK ? 0 : fail(&importing.at, &err);
}

/* ---- prune ------------------------------------------------------------------------------------------------------------------ */

static int run_prune(const struct command *command, struct command_args *args)
{
    struct at at = {0};
    struct amp_error err = {0};
    struct env_options options = {0};
    struct journal_prune_counts counts;
    enum amp_code code = find_journal(command, args, &at, false, &err);
    if (code == AMP_OK)
        code = env_retain_parse(&options, command_value(command, args, "retain-age"), command_value(command, args, "retain-bytes"), &err);
    struct journal_prune_options prune = {.now_unix_ms = clock_unix_ms(), .bytes_max = options.retain_bytes};
    prune.before_unix_ms = options.retain_age_ms ? prune.now_unix_ms - options.retain_age_ms : 0;
    if (code == AMP_OK)
        code = journal_prune(at.path, &prune, &counts, &err);
    if (code != AMP_OK)
        return fail(&at, &err);
    if (at.is_json)
        printf("{\"tasks\":%" PRIu64 ",\"bytesBefore\":%" PRIu64 ",\"bytes\":%" PRIu64 ",\"fileBytes\":%" PRIu64 ",\"chainRowsBefore\":%" PRIu64 ",\"chainRows\":%" PRIu64 "}\n", counts.tasks, counts.bytes_before,
               counts.bytes_after, counts.file_bytes, counts.chain_before, counts.chain_after);
    else
        printf("removed %" PRIu64 " tasks; the file had %" PRIu64 " bytes, it has %" PRIu64 "\n", counts.tasks, counts.bytes_before, counts.bytes_after);
    if (!at.is_json && counts.file_bytes)
        printf("removed files of %" PRIu64 " bytes\n", counts.file_bytes);
    return 0;
}

static const struct command_option verify_options[] = {JOURNAL_OPTION, {0}};
static const struct command_option export_options[] = {JOURNAL_OPTION,
                                                       {.name = "context", .arg = "ID", .help = "only this conversation"},
                                                       {.name = "since", .arg = "TIME", .help = "only tasks submitted since: 2026-12-01T00:00:00Z, or ago: 7d"},
                                                       {.name = "skip-corrupt", .help = "leave damaged rows out, and say how many"},
                                                       {0}};
static const struct command_option import_options[] = {JOURNAL_OPTION,
                                                       {.name = "continue", .help = "tasks that have not ended go on here"},
                                                       {.name = "ended", .help = "tasks that have not ended are left out"},
                                                       {0}};
static const struct command_option prune_options[] = {JOURNAL_OPTION, ENV_RETAIN_OPTIONS, {0}};

const struct command journal_commands[] = {
    {.name = "env verify",
     .operands = "",
     .summary = "check the journal: every row, its chain of hashes, its end",
     .details = "Reads one state of the file and changes nothing; the environment may run meanwhile. Each row is held against its seal, each seal against the newest entry "
                "of the chain that has it, each entry against the one before, the end of the chain against journal.db-head, the numbers of events, and SQLite's own structures; then each file of a task against its digest.\n\n"
                "Exit status 0: sound, or empty, as a start that was killed at once leaves it. 3: damaged, with a line for each finding: what, which chain entry wrote it, what is wrong.\n\n amesh env verify\n amesh env verify --journal backup.db",
     .options = verify_options,
     .run = run_verify},
    {.name = "env backup",
     .operands = "FILE",
     .summary = "copy the journal while the environment runs, and check the copy",
     .details = "The copy is one state of the journal, and a journal itself (with an id of its own). What is accepted meanwhile does not wait. "
                "It is checked as by amesh env verify. Files of tasks come along in FILE-blobs, as links where that is possible: move both.\n\n amesh env backup /backup/journal.db\n\nBack: amesh env restore FILE",
     .options = verify_options,
     .run = run_backup,
     .complete = "files"},
    {.name = "env restore",
     .operands = "FILE",
     .summary = "make a backup the journal",
     .details = "Checks the backup first. The journal that was there is kept beside it, as journal.db.<time>, with its files in journal.db.<time>-blobs. Files of tasks are taken from FILE-blobs, if they are not here already; those that are missing are named. Not while the environment runs.",
     .options = verify_options,
     .run = run_restore,
     .complete = "files"},
    {.name = "env export",
     .operands = "[FILE]",
     .summary = "write the journal's rows as JSON lines",
     .details = "To FILE, or to standard output. The first line names the journal, the newest entry of its chain and that entry's hash; a line follows for each row, "
                "{\"table\":…,\"row\":{…}}; files of tasks follow in pieces, {\"file\":…,\"base64\":…}, and one that is missing or damaged is named on stderr and left out; the last line has the number of rows and a hash of all lines before it. The environment may run meanwhile.\n\n amesh env export history.jsonl\n amesh env export --context c-01hq3b --since 7d",
     .options = export_options,
     .run = run_export,
     .complete = "files"},
    {.name = "env import",
     .operands = "FILE",
     .summary = "read an export into the journal",
     .details = "All of it or nothing, into the journal of the home, which is made if there is none. Rows that are there already are passed over; one that is there and differs is a conflict. "
                "Not while the environment runs.\n\nTasks that have not ended: say --continue, and the next environment works on them (the journal they come from must not be used any more: they would run twice), or --ended to leave them out.",
     .options = import_options,
     .run = run_import,
     .complete = "files"},
    {.name = "env prune",
     .operands = "",
     .summary = "remove old tasks from the journal and give the room back",
     .details = "For a journal that no environment has; one that runs does it by itself (amesh up --retain-age 30d), but only uses the room again. Open tasks, dead letters and memory stay. The journal is verified first, and nothing is removed from one that is damaged. When most of what the chain tells of is gone, the chain is made anew.\n\n amesh env prune --retain-age 30d",
     .options = prune_options,
     .run = run_prune},
    {0},
};
