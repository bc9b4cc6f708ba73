/* The connection and the calls of the client library. */
#include "amesh_client.h"
