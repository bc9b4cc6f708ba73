/* Lines in, lines out. */
#include "amesh_client.h"
