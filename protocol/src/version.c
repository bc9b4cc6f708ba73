#include <amp/amp.h>

const char *amp_version(void)
{
    return "0.1.0";
}
