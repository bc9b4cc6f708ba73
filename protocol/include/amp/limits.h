/* Every maximum of the protocol, by name. (amp.md 11) A peer can make nothing grow past these. */
#pragma once

#define AMP_PROTOCOL_VERSION 1u

#define AMP_NAME_MAX 63u               /* characters of an id */
#define AMP_DEPTH_MAX 32u              /* nesting of JSON and of protobuf */
#define AMP_MEMBERS_MAX 4096u          /* members of one JSON object, elements of one array, of one repeated field */
#define AMP_WIRE_BYTES_MAX (8u << 20)  /* one message on the bus, whatever the server allows */
#define AMP_JSON_BYTES_MAX (8u << 20)  /* one JSON document */
#define AMP_ARENA_BYTES_MAX (64u << 20) /* memory of one decoded message */
#define AMP_TEXT_EVENT_MAX (64u << 10) /* text in one event; more is split */
#define AMP_PARTS_MAX 256u             /* parts of a message or artifact */
#define AMP_ARTIFACTS_MAX 1024u        /* artifacts of a task */
#define AMP_LABEL_MAX 256u             /* bytes of a name that is no id: of a tool, a step, an artifact, a card, a tag */
#define AMP_DATA_DEPTH_MAX 16u         /* nesting of the free JSON in a local event, so that its frame and record keep within AMP_DEPTH_MAX */
#define AMP_SKILLS_MAX 128u            /* skills of a card */
#define AMP_TAGS_MAX 64u               /* tags of a skill or an instance */
#define AMP_DESCRIPTION_MAX 4096u      /* bytes of a description */
#define AMP_HOPS_MAX 16u               /* calls above a call */
#define AMP_STDERR_LINES_MAX 50u       /* lines of a death report */
#define AMP_STDERR_LINE_MAX 400u       /* bytes of such a line */
#define AMP_KV_KEY_MAX 256u            /* bytes of a key of the memory */
#define AMP_KV_VALUE_MAX (256u << 10)  /* bytes of its value */
#define AMP_KEY_MAX 128u               /* an idempotency key */
#define AMP_LINE_MAX (1u << 20)        /* a line on the local API */
#define AMP_QUESTIONS_MAX 64u          /* open questions of one task */
#define AMP_FOLD_BYTES_MAX (64u << 20) /* a task in memory */
#define AMP_BLOB_BYTES_MAX (2048u << 20) /* a blob */
#define AMP_BLOB_CHUNK_MAX (128u << 10) /* bytes of it in one message */
#define AMP_INFLIGHT_TASKS_REPORTED 64u /* tasks named in a beat */
