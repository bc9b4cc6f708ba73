#!/bin/sh
# The campaign's agent as a program per task: the digest of what it was asked.
exec sha256sum | cut -c1-64
