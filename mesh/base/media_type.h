/* What a file is, by the end of its name: "application/octet-stream" if that says nothing. */
#pragma once

const char *media_type_of(const char *path);
