/* libamesh-client: an agent in C, on the local API (spec/local-api.md). */
#pragma once
