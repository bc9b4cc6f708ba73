/* The program's log: stderr, one line per event, logfmt on a terminal, JSON lines otherwise.
 * Only programs and the edge of a layer log; each error once. Values are sanitised; values of fields named `token`, `creds`,
 * `password`, `secret`, `authorization` and user:password@ in URLs are replaced by "***". Repeats from one call site are limited to 20 in a
 * second, then, while there are more, in 2, 4 … 60 s; the number left out is said. Loop thread only, but for the journal's worker, which may call log_event too (one write(2) per line). */
#pragma once

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };

void log_init(enum log_level level, const char *program);
/* level from AMESH_LOG (debug, info, warn, error); default `fallback` */
enum log_level log_level_from_env(enum log_level fallback);

/* log_event(LOG_WARN, "bus.reconnected", "url", url, "after_ms", log_int(ms), NULL): pairs of key and text, ended by NULL. */
void log_event(enum log_level level, const char *event, ...) __attribute__((sentinel));
/* Text of a number, in one of 8 rotating buffers: only for arguments of log_event. */
const char *log_int(long long value);
