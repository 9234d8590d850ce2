// As much of JSON as a publisher needs that passes the rest on.
#pragma once
#include "text.h"

/// The value of a member of an object, as it stands there; empty where there is none. `json` is valid, as the contract
/// promises. Names are compared as they are written: one that has escapes is not found.
text json_member(text json, const char *name);
