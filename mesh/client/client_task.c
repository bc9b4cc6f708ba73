/* What an agent says about a task. */
#include "amesh_client.h"
