#!/bin/sh
# The campaign's agent as a program per task: the digest of what it was asked.
printf %s "$(sha256sum | cut -c1-64)"
