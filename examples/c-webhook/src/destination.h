// Where to post to: the parts of an http or https URL. They point into it.
#pragma once
#include "text.h"

struct destination {
  bool https;
  text authority;
  text path_with_query;
};

/// NULL, or what is wrong with the URL.
const char *parse_destination(const char *url, struct destination *destination);

/// Adds it without its query, which often carries a token.
void add_destination(text *to, const struct destination *destination);
