/* What the files of the client library share. */
#pragma once
