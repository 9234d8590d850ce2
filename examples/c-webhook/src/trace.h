// The trace that an event belongs to, as W3C's Trace Context has it.
#pragma once
#include "text.h"

/// Both are JSON strings, with their quotes; empty where there are none.
struct trace {
  text parent, state;
};

/// The trace that an event's context names: itself, or where python-event-sourcery puts it. A context of another shape is the
/// application's own affair.
struct trace trace_of(text context);

/// A JSON string without its quotes, where it can be a header's value as it stands there; else empty.
text header_value(text string);
