#pragma once
#include "answer.h"

struct header {
  const char *name;
  text value;
};

/// Posts `body`, and waits for the whole response. Whether there is one; else `error` says why not.
bool post(const struct destination *destination, const struct header *headers, size_t count, text body,
          struct response *response, publish_error *error);
